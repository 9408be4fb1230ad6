#include "compute/files/safetensors.hpp"
#include "tests/catch.hpp"
#include "tests/compute/files/model_writer.hpp"

#include <cstring>

using namespace hexgen::compute;

namespace {

std::vector<std::byte> file_of(const std::string& header, std::size_t data_bytes) {
  std::vector<std::byte> out(8 + header.size() + data_bytes);
  const auto length = static_cast<std::uint64_t>(header.size());
  std::memcpy(out.data(), &length, 8);
  std::memcpy(out.data() + 8, header.data(), header.size());
  return out;
}

std::string error_of(const std::vector<std::byte>& bytes) {
  try {
    (void)safetensors_file::parse("w.safetensors", bytes, nullptr);
  } catch (const file_error& error) {
    return error.what();
  }
  return "no error";
}

std::string error_of(const std::string& header, std::size_t data_bytes) {
  return error_of(file_of(header, data_bytes));
}

bool contains(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

} // namespace

TEST_CASE("safetensors are read under their own names") {
  const auto bytes = file_of(R"({"__metadata__": {"format": "pt"},
    "b": {"dtype": "F32", "shape": [2, 3], "data_offsets": [4, 28]},
    "a": {"dtype": "BF16", "shape": [2], "data_offsets": [0, 4]}})",
                             28);
  const auto file = safetensors_file::parse("w.safetensors", bytes, nullptr);
  REQUIRE(file->tensors().size() == 2);
  const auto* matrix = file->find("b");
  REQUIRE(matrix != nullptr);
  CHECK(matrix->rows == 2);
  CHECK(matrix->columns == 3);
  CHECK(matrix->type == tensor_type::f32);
  CHECK(matrix->bytes.data() == bytes.data() + bytes.size() - 24);
  CHECK(file->find("a")->rows == 1);
  CHECK(file->find("a")->columns == 2);
  CHECK(file->find("c") == nullptr);
}

TEST_CASE("safetensors that lie about themselves are refused") {
  CHECK(contains(error_of(std::vector<std::byte>(7)), "header length"));
  CHECK(contains(error_of(std::vector<std::byte>(9, std::byte{0xff})), "header length"));
  CHECK(contains(error_of("{", 0), "not valid JSON"));
  CHECK(contains(error_of("[1]", 0), "not a JSON object"));
  CHECK(contains(error_of(std::string(1 << 20, '['), 0), "levels"));
  CHECK(contains(error_of(R"({"a": 1})", 0), "'a': not an object"));
  CHECK(contains(error_of(R"({"a": {"shape": [1], "data_offsets": [0, 4]}})", 4), "dtype"));
  const auto with = [](const std::string& type, const std::string& shape,
                       const std::string& offsets, std::size_t bytes) {
    return error_of(R"({"a": {"dtype": ")" + type + R"(", "shape": )" + shape +
                        R"(, "data_offsets": )" + offsets + "}}",
                    bytes);
  };
  CHECK(with("F32", "[2]", "[0, 8]", 8) == "no error");
  CHECK(contains(with("I64", "[1]", "[0, 8]", 8), "dtype: 'I64'"));
  CHECK(contains(with("F32", "[]", "[0, 4]", 4), "shape"));
  CHECK(contains(with("F32", "[1, 1, 1]", "[0, 4]", 4), "shape"));
  CHECK(contains(with("F32", "[0]", "[0, 0]", 0), "a dimension is 0"));
  CHECK(contains(with("F32", "[-2]", "[0, 8]", 8), "shape"));
  CHECK(contains(with("F32", "[2.0]", "[0, 8]", 8), "shape"));
  CHECK(contains(with("F32", "[18446744073709551615]", "[0, 8]", 8), "shape"));
  CHECK(contains(with("F32", "[2147483647, 2147483647]", "[0, 8]", 8), "do not fit"));
  CHECK(contains(with("F32", "[2]", "[0, 12]", 12), "do not fit"));
  CHECK(contains(with("F32", "[2]", "[8, 0]", 8), "do not fit"));
  CHECK(contains(with("F32", "[2]", "[4, 12]", 8), "do not fit"));
  CHECK(contains(with("F32", "[2]", "[0]", 8), "want two numbers"));
  CHECK(contains(with("F32", "[2]", "[4, 12]", 12), "hole"));
  CHECK(contains(with("F32", "[2]", "[0, 8]", 9), "no tensor covers"));
  CHECK(contains(error_of(R"({"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]},
    "b": {"dtype": "F32", "shape": [2], "data_offsets": [4, 12]}})",
                          12),
                 "overlap"));
}
