#include "compute/files/gguf_model.hpp"
#include "compute/model_digest.hpp"
#include "compute/synthetic.hpp"
#include "tests/catch.hpp"
#include "tests/compute/files/model_writer.hpp"

using namespace hexgen::compute;

namespace {

std::string hash_of(std::string_view text, std::size_t piece) {
  blake2b hash;
  for (std::size_t at = 0; at < text.size(); at += piece)
    hash.update(std::as_bytes(std::span(text.substr(at, piece))));
  return to_hex(hash.finish());
}

std::string digest_of(const model_config& config, tensor_type type = tensor_type::f32,
                      std::uint64_t seed = 1) {
  return to_hex(model_digest(*make_synthetic_model(config, type, seed)));
}

} // namespace

TEST_CASE("blake2b agrees with Python's hashlib, in pieces of any size") {
  // hashlib.blake2b(text, digest_size=32).hexdigest()
  CHECK(hash_of("", 1) == "0e5751c026e543b2e8ab2eb06099daa1d1e5df47778f7787faab45cdf12fe3a8");
  CHECK(hash_of("abc", 3) == "bddd813c634239723171ef3fee98579b94964e3bb1cb3e427262c8c068d52319");
  std::string text;
  for (int i = 0; i < 1000; ++i)
    text += static_cast<char>('a' + i % 23);
  const std::string whole = "5a83c48f8b743386dfc3fd75c94069a155a378d19ee30ec8b7ac4284aefd74c4";
  for (const std::size_t piece : {1U, 7U, 64U, 128U, 129U, 1000U})
    CHECK(hash_of(text, piece) == whole);
  CHECK(hash_of(text.substr(0, 128), 50) ==
        "04e41f029178adadca23d58b01549d5f96a1caa0d585c8ae51b38c02044e9fb8");
}

TEST_CASE("a model's digest tells models apart and files of one model alike") {
  auto config = tiny_config();
  const auto model = make_synthetic_model(config, tensor_type::f32, 1);
  const auto same = to_hex(model_digest(*model));
  CHECK(digest_of(config) == same);
  const auto bytes = hexgen::tests::gguf_bytes(*model);
  config.name = "another name";
  CHECK(digest_of(config) == same);
  CHECK(to_hex(model_digest(*open_gguf_model(gguf_file::parse("x", bytes, nullptr)))) ==
        to_hex(model_digest(*model)));
  CHECK(digest_of(config, tensor_type::f32, 2) != same);
  CHECK(digest_of(config, tensor_type::q8_0) != same);
  auto other = config;
  other.rope_theta *= 2;
  CHECK(digest_of(other) != same);
  other = config;
  other.context *= 2;
  CHECK(digest_of(other) != same);
  other = config;
  other.rope_interleaved = false;
  CHECK(digest_of(other) != same);
}

TEST_CASE("a tensor's digest covers every byte and the shape, not the name") {
  std::vector<std::byte> bytes(4096);
  tensor_view tensor{"a", tensor_type::f32, 2, 512, bytes};
  const auto first = tensor_digest(tensor);
  tensor.name = "b";
  CHECK(tensor_digest(tensor) == first);
  tensor.rows = 512;
  tensor.columns = 2;
  CHECK(tensor_digest(tensor) != first);
  tensor.rows = 2;
  tensor.columns = 512;
  bytes.back() = std::byte{1};
  CHECK(tensor_digest(tensor) != first);
}
