#include "compute/files/gguf.hpp"
#include "tests/catch.hpp"
#include "tests/compute/files/model_writer.hpp"

#include <cstring>

using namespace hexgen::compute;
using hexgen::tests::gguf_writer;

namespace {

/// Parses a copy that has exactly the file's size, so that a sanitizer sees every overrun.
std::shared_ptr<const gguf_file> parse(const std::vector<std::byte>& bytes) {
  auto copy = std::make_shared<std::vector<std::byte>>(bytes);
  copy->shrink_to_fit();
  return gguf_file::parse("test.gguf", *copy, copy);
}

std::string error_of(const std::vector<std::byte>& bytes) {
  try {
    parse(bytes);
  } catch (const file_error& error) {
    return error.what();
  }
  return "no error";
}

bool contains(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

template <class Use>
std::string message_of(Use use) {
  try {
    use();
  } catch (const file_error& error) {
    return error.what();
  }
  return "no error";
}

template <class T>
void replace(std::vector<std::byte>& bytes, std::size_t at, T value) {
  std::memcpy(bytes.data() + at, &value, sizeof value);
}

std::size_t find_text(const std::vector<std::byte>& bytes, const std::string& text) {
  const std::string_view all(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  const auto at = all.find(text);
  REQUIRE(at != std::string_view::npos);
  return at;
}

const float eight[8] = {1, 2, 3, 4, 5, 6, 7, 8};

tensor_view f32_tensor(std::string_view name, std::int64_t rows, std::int64_t columns) {
  return {name, tensor_type::f32, rows, columns,
          std::as_bytes(std::span(eight)).first(static_cast<std::size_t>(rows * columns) * 4)};
}

} // namespace

TEST_CASE("gguf metadata of every kind is read back, in versions 2 and 3") {
  for (const std::uint32_t version : {2U, 3U}) {
    gguf_writer writer(version);
    writer.add_u32("u32", 7);
    writer.add_i32("i32", -7);
    writer.add_u64("u64", 1ULL << 40);
    writer.add_f32("f32", 0.5F);
    writer.add_bool("yes", true);
    writer.add_string("text", "h\xc3\xa9");
    writer.add_strings("tokens", {"a", "", "ccc"});
    writer.add_i32s("ids", {3, -1});
    writer.add_f32s("scores", {0.25F, -2});
    const auto file = parse(writer.bytes());
    CHECK(file->version() == version);
    CHECK(file->values().size() == 9);
    CHECK(file->at("u32").as_integer() == 7);
    CHECK(file->at("u32").as_number() == 7.0);
    CHECK(file->at("i32").as_integer() == -7);
    CHECK(file->at("u64").as_integer() == std::int64_t{1} << 40);
    CHECK(file->at("f32").as_number() == 0.5);
    CHECK(file->at("yes").as_boolean());
    CHECK(file->at("text").as_string() == "h\xc3\xa9");
    CHECK(file->at("tokens").as_strings() == std::vector<std::string_view>{"a", "", "ccc"});
    CHECK(file->at("tokens").count() == 3);
    CHECK(file->at("ids").as_integers() == std::vector<std::int32_t>{3, -1});
    CHECK(file->at("scores").as_floats() == std::vector<float>{0.25F, -2});
    CHECK(file->find("none") == nullptr);
  }
}

TEST_CASE("a gguf value of another type is refused by file and key") {
  gguf_writer writer;
  writer.add_string("text", "x");
  writer.add_u32("number", 300);
  writer.add_u64("huge", ~0ULL);
  writer.add_i32s("ids", {1});
  const auto file = parse(writer.bytes());
  CHECK(message_of([&] { (void)file->at("text").as_integer(); }) ==
        "test.gguf: 'text': want an integer, is string");
  CHECK(message_of([&] { (void)file->at("number").as_string(); }) ==
        "test.gguf: 'number': want a string, is u32");
  CHECK(message_of([&] { (void)file->at("ids").as_strings(); }) ==
        "test.gguf: 'ids': want an array of strings, is an array of i32");
  CHECK(message_of([&] { (void)file->at("ids").as_integer(); }) ==
        "test.gguf: 'ids': want an integer, is an array of i32");
  CHECK(message_of([&] { (void)file->at("number").as_boolean(); }) ==
        "test.gguf: 'number': want a bool, is u32");
  CHECK(message_of([&] { (void)file->at("number").as_integer(0, 255); }) ==
        "test.gguf: 'number': 300 lies outside [0, 255]");
  CHECK(contains(message_of([&] { (void)file->at("huge").as_integer(); }), "lies outside"));
  CHECK(message_of([&] { (void)file->at("absent"); }) == "test.gguf: 'absent': missing");
}

TEST_CASE("gguf tensors are found where the table says") {
  gguf_writer writer;
  writer.set_alignment(64);
  writer.add_tensor(f32_tensor("vector", 1, 8));
  writer.add_tensor(f32_tensor("matrix", 2, 4));
  const auto file = parse(writer.bytes());
  REQUIRE(file->tensors().size() == 2);
  const auto& matrix = file->tensors()[1];
  CHECK(matrix.name == "matrix");
  CHECK(matrix.rows == 2);
  CHECK(matrix.columns == 4);
  CHECK(matrix.bytes.size() == 32);
  CHECK(std::memcmp(matrix.bytes.data(), eight, 32) == 0);
  CHECK(file->tensors()[0].rows == 1);
}

TEST_CASE("a gguf file that lies about itself is refused") {
  gguf_writer writer;
  writer.add_strings("tokens", {"abc", "def"});
  writer.add_i32s("ids", {1, 2});
  writer.add_tensor(f32_tensor("first", 1, 8));
  writer.add_tensor(f32_tensor("second", 2, 4));
  const auto good = writer.bytes();
  REQUIRE(error_of(good) == "no error");
  const auto broken = [&](std::size_t at, auto value) {
    auto bytes = good;
    replace(bytes, at, value);
    return error_of(bytes);
  };
  CHECK(contains(broken(0, 'g'), "not a GGUF file"));
  CHECK(contains(broken(4, std::uint32_t{1}), "version: 1"));
  CHECK(contains(broken(8, std::uint64_t{1} << 60), "tensor count"));
  CHECK(contains(broken(16, std::uint64_t{1} << 60), "metadata count"));
  CHECK(contains(broken(24, std::uint64_t{1} << 62), "metadata key 0"));
  const auto tokens = find_text(good, "tokens") + 6;
  CHECK(contains(broken(tokens, std::uint32_t{13}), "unknown value type 13"));
  CHECK(contains(broken(tokens + 4, std::uint32_t{9}), "an array of arrays"));
  CHECK(contains(broken(tokens + 8, ~0ULL), "'tokens'"));
  CHECK(contains(broken(tokens + 16, ~0ULL), "'tokens'"));
  const auto ids = find_text(good, "ids") + 3;
  CHECK(contains(broken(ids + 8, std::uint64_t{1} << 62), "'ids'")); // times 4 wraps to 0
  CHECK(contains(broken(ids + 8, ~0ULL), "'ids'"));
  const auto first = find_text(good, "first") + 5;
  CHECK(contains(broken(first, std::uint32_t{0}), "0 dimensions"));
  CHECK(contains(broken(first, std::uint32_t{5}), "5 dimensions"));
  CHECK(contains(broken(first + 4, std::uint64_t{0}), "dimension 0 is 0"));
  CHECK(contains(broken(first + 4, ~0ULL), "dimension 0 is 18446744073709551615"));
  CHECK(contains(broken(first + 4, std::uint64_t{1} << 30), "past the end"));
  CHECK(contains(broken(first + 12, std::uint32_t{99}), "tensor type 99"));
  CHECK(contains(broken(first + 12, std::uint32_t{2}), "not whole blocks of Q4_0"));
  CHECK(contains(broken(first + 16, std::uint64_t{4}), "not aligned"));
  CHECK(contains(broken(first + 16, std::uint64_t{1} << 63), "past the end"));
  CHECK(contains(broken(first + 16, std::uint64_t{32}), "overlaps"));
  const auto second = find_text(good, "second");
  auto twice = good;
  std::memcpy(twice.data() + second, "first2", 6);
  CHECK(error_of(twice) == "no error");
}

TEST_CASE("gguf keys and tensors given twice, and odd alignments, are refused") {
  gguf_writer keys;
  keys.add_u32("a", 1);
  keys.add_u32("a", 2);
  CHECK(contains(error_of(keys.bytes()), "'a': given twice"));
  gguf_writer tensors;
  tensors.add_tensor(f32_tensor("a", 1, 8));
  tensors.add_tensor(f32_tensor("a", 1, 8));
  CHECK(contains(error_of(tensors.bytes()), "'a': given twice"));
  for (const std::uint32_t alignment : {1U, 4U, 24U, 1U << 30}) {
    gguf_writer writer;
    writer.set_alignment(alignment);
    CHECK(contains(error_of(writer.bytes()), "general.alignment"));
  }
}
