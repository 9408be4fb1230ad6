#include "compute/shape_model.hpp"

#include "compute/files/stored_model.hpp"
#include "compute/synthetic.hpp"
#include "config/model_shape.hpp"

#include <algorithm>

namespace hexgen::compute {
namespace {

constexpr std::uint64_t weight_seed = 1;

model_config config_of(const std::filesystem::path& file) {
  model_config c;
  try {
    const auto shape = config::read_model_shape(file.string());
    c.name = shape.name;
    c.architecture = shape.architecture;
    c.layers = shape.layers;
    c.hidden = shape.hidden;
    c.heads = shape.heads;
    c.kv_heads = shape.kv_heads;
    c.head_dim = shape.head_dimension();
    c.ffn = shape.ffn;
    c.vocab = shape.vocab;
    c.tied_head = shape.tied_embedding;
  } catch (const std::exception& e) {
    throw file_error(e.what());
  }
  c.context = 4096;
  c.qkv_bias = c.architecture == "qwen2";
  c.qk_norm = c.architecture == "qwen3";
  check_config(c, file.string());
  return c;
}

class byte_tokenizer final : public tokenizer {
public:
  explicit byte_tokenizer(int vocab) : vocab_(vocab) {}
  [[nodiscard]] std::vector<token_id> encode(std::string_view text, bool, bool) const override {
    std::vector<token_id> out;
    for (const unsigned char c : text)
      out.push_back(static_cast<token_id>(c) % vocab_);
    return out;
  }
  [[nodiscard]] std::string piece(token_id id, bool) const override {
    return {static_cast<char>('a' + id % 26)};
  }
  [[nodiscard]] int vocab() const override { return vocab_; }
  [[nodiscard]] bool is_special(token_id) const override { return false; }
  [[nodiscard]] token_id bos() const override { return -1; }
  [[nodiscard]] token_id eos() const override { return -1; }
  [[nodiscard]] std::span<const token_id> end_ids() const override { return {}; }
  [[nodiscard]] const std::string& chat_template() const override { return none_; }

private:
  int vocab_;
  std::string none_;
};

} // namespace

shape_model::shape_model(model_config config) : config_(std::move(config)) {
  const auto expected = expected_tensors(config_);
  for (const auto& t : expected)
    names_.push_back(t.name);
  for (std::size_t i = 0; i < expected.size(); ++i)
    views_.push_back({names_[i], tensor_type::bf16, expected[i].rows, expected[i].columns, {}});
}

const tensor_view* shape_model::find(std::string_view name) const {
  const auto found = std::find_if(views_.begin(), views_.end(),
                                  [&](const tensor_view& t) { return t.name == name; });
  return found == views_.end() ? nullptr : &*found;
}

std::uint64_t shape_model::total_bytes() const {
  std::uint64_t bytes = 0;
  for (const auto& t : views_)
    bytes += row_bytes(t.type, t.columns) * static_cast<std::uint64_t>(t.rows);
  return bytes;
}

std::shared_ptr<const model_file> shape_model::filled() const {
  return make_synthetic_model(config_, tensor_type::bf16, weight_seed);
}

std::shared_ptr<const shape_model> open_shape_model(const std::filesystem::path& file) {
  return std::make_shared<shape_model>(config_of(file));
}

std::shared_ptr<const tokenizer> open_shape_tokenizer(const std::filesystem::path& file) {
  return std::make_shared<byte_tokenizer>(config_of(file).vocab);
}

} // namespace hexgen::compute
