// A tokenizer of given pieces, for tests of the sampler.
#pragma once

#include "compute/tokenizer.hpp"

#include <string>
#include <utility>
#include <vector>

namespace hexgen::compute {

class fake_tokenizer final : public tokenizer {
public:
  /// `ends` are special and end a generation; the first is eos.
  fake_tokenizer(std::vector<std::string> pieces, std::vector<token_id> ends)
      : pieces_(std::move(pieces)), ends_(std::move(ends)) {}
  [[nodiscard]] std::vector<token_id> encode(std::string_view, bool, bool) const override {
    return {};
  }
  [[nodiscard]] std::string piece(token_id id, bool skip_special) const override {
    return skip_special && is_special(id) ? "" : pieces_.at(static_cast<std::size_t>(id));
  }
  [[nodiscard]] int vocab() const override { return static_cast<int>(pieces_.size()); }
  [[nodiscard]] bool is_special(token_id id) const override {
    for (const auto e : ends_)
      if (e == id)
        return true;
    return false;
  }
  [[nodiscard]] token_id bos() const override { return -1; }
  [[nodiscard]] token_id eos() const override { return ends_.empty() ? -1 : ends_.front(); }
  [[nodiscard]] std::span<const token_id> end_ids() const override { return ends_; }
  [[nodiscard]] const std::string& chat_template() const override { return none_; }

private:
  std::vector<std::string> pieces_;
  std::vector<token_id> ends_;
  std::string none_;
};

} // namespace hexgen::compute
