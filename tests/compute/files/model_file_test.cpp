#include "compute/files/gguf_model.hpp"
#include "compute/files/hf_config.hpp"
#include "compute/files/safetensors.hpp"
#include "compute/model_file.hpp"
#include "compute/synthetic.hpp"
#include "tests/catch.hpp"
#include "tests/compute/files/model_writer.hpp"

#include <cmath>
#include <cstdlib>
#include <cstring>
#include <random>

using namespace hexgen::compute;
using namespace hexgen::tests;

namespace {

/// A model whose file is a few KB, so that every byte can be tried.
model_config minute(const char* architecture) {
  auto config = tiny_config(architecture);
  config.layers = 1;
  config.hidden = 8;
  config.heads = 2;
  config.kv_heads = 1;
  config.head_dim = 4;
  config.ffn = 8;
  config.vocab = 8;
  return config;
}

std::shared_ptr<const model_file> open_gguf(const std::vector<std::byte>& bytes) {
  auto copy = std::make_shared<std::vector<std::byte>>(bytes);
  copy->shrink_to_fit();
  return open_gguf_model(gguf_file::parse("test.gguf", *copy, copy));
}

std::string error_of(const std::vector<std::byte>& bytes) {
  try {
    (void)open_gguf(bytes);
  } catch (const file_error& error) {
    return error.what();
  }
  return "no error";
}

bool contains(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

/// Reads everything that an opened model promises to be readable.
double read_all(const model_file& model) {
  double sum = 0;
  std::vector<float> row;
  for (const auto& tensor : model.tensors()) {
    const auto stride = row_bytes(tensor.type, tensor.columns);
    REQUIRE(stride * static_cast<std::size_t>(tensor.rows) == tensor.bytes.size());
    row.resize(static_cast<std::size_t>(tensor.columns));
    for (std::int64_t r = 0; r < tensor.rows; ++r) {
      dequantize_row(tensor.type, tensor.bytes.data() + static_cast<std::size_t>(r) * stride,
                     tensor.columns, row.data());
      sum += static_cast<double>(row[0]);
    }
  }
  return sum;
}

/// Opens damaged copies with `open`: each must throw file_error or give a model that reads whole.
template <class Open>
int count_refused(const std::vector<std::byte>& good, std::size_t flips, Open open) {
  std::mt19937_64 random(99);
  int refused = 0;
  for (std::size_t i = 0; i < flips; ++i) {
    auto bytes = good;
    const auto bits = 1 + random() % 3;
    for (std::uint64_t b = 0; b < bits; ++b)
      bytes[random() % bytes.size()] ^= std::byte{1} << (random() % 8);
    try {
      open(bytes);
    } catch (const file_error&) {
      ++refused;
    }
  }
  return refused;
}

std::filesystem::path default_model() {
  if (const char* path = std::getenv("HEXGEN_MODEL"))
    return path;
  const char* cache = std::getenv("XDG_CACHE_HOME");
  const char* home = std::getenv("HOME");
  const auto base = cache != nullptr
                        ? std::filesystem::path(cache)
                        : std::filesystem::path(home != nullptr ? home : "/") / ".cache";
  return base / "hexgen/models/SmolLM2-135M-Instruct.Q4_1.gguf";
}

} // namespace

TEST_CASE("every family and every tensor type comes back from GGUF") {
  for (const char* architecture : {"llama", "mistral", "qwen2", "qwen3"})
    for (const auto type :
         {tensor_type::f32, tensor_type::f16, tensor_type::bf16, tensor_type::q8_0,
          tensor_type::q4_0, tensor_type::q4_1, tensor_type::q5_0, tensor_type::q5_1,
          tensor_type::iq4_nl, tensor_type::q4_k, tensor_type::q5_k, tensor_type::q6_k}) {
      auto config = tiny_config(architecture);
      config.layers = 1;
      config.hidden = 256;
      config.heads = 8;
      const auto model = make_synthetic_model(config, type, 1);
      const auto back = open_gguf(gguf_bytes(*model, type == tensor_type::f32 ? 2 : 3));
      INFO(architecture << " " << to_string(type));
      CHECK(back->config().rope_interleaved ==
            (back->config().architecture == "llama" || back->config().architecture == "mistral"));
      CHECK(back->config().qkv_bias == config.qkv_bias);
      CHECK(back->config().qk_norm == config.qk_norm);
      CHECK(back->config().tied_head == config.tied_head);
      CHECK(back->config().vocab == config.vocab);
      CHECK(back->config().head_dim == config.head_dim);
      CHECK(back->config().norm_epsilon == config.norm_epsilon);
      REQUIRE(back->tensors().size() == model->tensors().size());
      CHECK(back->total_bytes() == model->total_bytes());
      std::size_t wrong = 0;
      for (std::size_t i = 0; i < model->tensors().size(); ++i) {
        const auto& want = model->tensors()[i];
        const auto* have = back->find(want.name);
        wrong += have == nullptr || have->bytes.size() != want.bytes.size() ||
                 std::memcmp(have->bytes.data(), want.bytes.data(), want.bytes.size()) != 0;
      }
      CHECK(wrong == 0);
    }
}

TEST_CASE("rope scaling and frequency factors come back from GGUF") {
  auto config = minute("llama");
  config.rope_frequency_factors = {1.0F, 8.0F};
  config.scaling = rope_scaling::linear;
  config.rope_factor = 4;
  auto back = open_gguf(gguf_bytes(*make_synthetic_model(config, tensor_type::f32, 1)));
  CHECK(back->config().rope_frequency_factors == config.rope_frequency_factors);
  CHECK(back->config().scaling == rope_scaling::linear);
  CHECK(back->config().rope_factor == 4);
  CHECK(back->find("rope_freqs.weight") == nullptr);
  config.scaling = rope_scaling::yarn;
  config.rope_original_context = 128;
  back = open_gguf(gguf_bytes(*make_synthetic_model(config, tensor_type::f32, 1)));
  CHECK(back->config().scaling == rope_scaling::yarn);
  CHECK(back->config().rope_original_context == 128);
}

TEST_CASE("a GGUF model that is not whole or not of the family is refused") {
  const auto model = make_synthetic_model(minute("llama"), tensor_type::f32, 1);
  const auto rebuilt = [&](const char* without, const tensor_view* more = nullptr) {
    gguf_writer writer;
    const auto& c = model->config();
    writer.add_string("general.architecture", c.architecture);
    for (const auto& [key, value] : {std::pair{"llama.block_count", c.layers},
                                     {"llama.context_length", c.context},
                                     {"llama.embedding_length", c.hidden},
                                     {"llama.feed_forward_length", c.ffn},
                                     {"llama.attention.head_count", c.heads},
                                     {"llama.attention.head_count_kv", c.kv_heads}})
      if (std::string_view(key) != without)
        writer.add_u32(key, static_cast<std::uint32_t>(value));
    writer.add_f32("llama.attention.layer_norm_rms_epsilon", 1e-5F);
    for (const auto& tensor : model->tensors())
      if (tensor.name != without)
        writer.add_tensor(tensor);
    if (more != nullptr)
      writer.add_tensor(*more);
    return error_of(writer.bytes());
  };
  REQUIRE(rebuilt("") == "no error");
  CHECK(rebuilt("llama.block_count") == "test.gguf: 'llama.block_count': missing");
  CHECK(contains(rebuilt("blk.0.ffn_up.weight"), "tensor 'blk.0.ffn_up.weight': missing"));
  CHECK(rebuilt("output.weight") == "no error"); // tied
  CHECK(contains(rebuilt("llama.attention.head_count_kv"), "'blk.0.attn_k.weight': is 4 x 8"));
  const float values[8] = {};
  const tensor_view bias{"blk.0.attn_output.bias", tensor_type::f32, 1, 8,
                         std::as_bytes(std::span(values))};
  CHECK(contains(rebuilt("", &bias), "'blk.0.attn_output.bias': not part of"));
  gguf_writer other;
  other.add_string("general.architecture", "gpt2\n");
  CHECK(contains(error_of(other.bytes()), "'gpt2?' is none of"));
  gguf_writer none;
  CHECK(contains(error_of(none.bytes()), "'general.architecture': missing"));
}

TEST_CASE("a GGUF file cut anywhere is refused") {
  const auto good = gguf_bytes(*make_synthetic_model(minute("qwen3"), tensor_type::f16, 1));
  REQUIRE(error_of(good) == "no error");
  for (std::size_t length = 0; length < good.size(); ++length)
    if (error_of({good.begin(), good.begin() + static_cast<std::ptrdiff_t>(length)}) == "no error")
      FAIL("opened when cut to " << length << " of " << good.size() << " bytes");
}

TEST_CASE("a safetensors file cut anywhere is refused") {
  const auto model = make_synthetic_model(minute("qwen3"), tensor_type::f16, 1);
  const auto good = safetensors_bytes({model->tensors().begin(), model->tensors().end()});
  CHECK(safetensors_file::parse("w", good, nullptr)->tensors().size() == model->tensors().size());
  for (std::size_t length = 0; length < good.size(); ++length) {
    const std::vector<std::byte> bytes(good.begin(),
                                       good.begin() + static_cast<std::ptrdiff_t>(length));
    CHECK_THROWS_AS(safetensors_file::parse("w", bytes, nullptr), file_error);
  }
}

TEST_CASE("flipped bits are refused or harmless") {
  const auto model = make_synthetic_model(minute("llama"), tensor_type::f16, 1);
  const auto gguf = gguf_bytes(*model);
  const auto in_gguf =
      count_refused(gguf, 6000, [](const auto& bytes) { (void)read_all(*open_gguf(bytes)); });
  CHECK(in_gguf > 1000); // flips in the header; those in the weights go unseen
  const auto tensors = safetensors_bytes({model->tensors().begin(), model->tensors().end()});
  const auto in_safetensors = count_refused(tensors, 3000, [](const auto& bytes) {
    const auto file = safetensors_file::parse("w", bytes, nullptr);
    for (const auto& tensor : file->tensors())
      REQUIRE(tensor.bytes.size() ==
              row_bytes(tensor.type, tensor.columns) * static_cast<std::size_t>(tensor.rows));
  });
  CHECK(in_safetensors > 500);
  const auto text = hf_config_json(model->config());
  const auto* first = reinterpret_cast<const std::byte*>(text.data());
  const auto in_config = count_refused({first, first + text.size()}, 3000, [](const auto& bytes) {
    const auto config =
        parse_hf_config({reinterpret_cast<const char*>(bytes.data()), bytes.size()}, "config.json");
    REQUIRE(config.heads % config.kv_heads == 0);
  });
  CHECK(in_config > 500);
}

TEST_CASE("paths that are no model are refused by name") {
  const auto error = [](const std::filesystem::path& path) -> std::string {
    try {
      (void)open_model(path);
    } catch (const file_error& e) {
      return e.what();
    }
    return "no error";
  };
  const temporary_folder folder;
  CHECK(contains(error(folder.path() / "none.gguf"), "none.gguf: cannot open: No such file"));
  CHECK(contains(error(folder.path() / "model.bin"), "neither a .gguf file nor a folder"));
  write_file(folder.path() / "empty.gguf", std::string_view());
  CHECK(contains(error(folder.path() / "empty.gguf"), "not a GGUF file"));
  CHECK(contains(error("/dev/null"), "neither"));
}

TEST_CASE("the default model opens") {
  const auto path = default_model();
  if (!std::filesystem::exists(path))
    FAIL(path.string() << " is missing: tools/fetch_model.sh gets it");
  const auto model = open_model(path);
  CHECK(model->config().architecture == "llama");
  CHECK(model->config().layers == 30);
  CHECK(model->config().heads == 9);
  CHECK(model->config().kv_heads == 3);
  CHECK(model->config().head_dim == 64);
  CHECK(model->config().ffn == 1536);
  CHECK(model->config().vocab == 49152);
  CHECK(model->config().context == 8192);
  CHECK(model->config().rope_theta == 100000.0);
  CHECK(model->config().tied_head);
  CHECK(model->config().rope_interleaved);
  CHECK(model->find("token_embd.weight")->type == tensor_type::q8_0);
  CHECK(model->find("blk.29.ffn_down.weight")->type == tensor_type::q4_1);
  CHECK(std::isfinite(read_all(*model)));
}
