// Every byte is a token; id 256 ends a generation.
#pragma once

#include "compute/tokenizer.hpp"

#include <string>
#include <vector>

namespace hexgen::tests {

class byte_tokenizer final : public compute::tokenizer {
public:
  [[nodiscard]] std::vector<compute::token_id> encode(std::string_view text, bool,
                                                      bool) const override {
    std::vector<compute::token_id> out;
    for (const char c : text)
      out.push_back(static_cast<unsigned char>(c));
    return out;
  }
  [[nodiscard]] std::string piece(compute::token_id id, bool skip_special) const override {
    if (id >= 256)
      return skip_special ? "" : "<end>";
    return {static_cast<char>(id)};
  }
  [[nodiscard]] int vocab() const override { return 257; }
  [[nodiscard]] bool is_special(compute::token_id id) const override { return id >= 256; }
  [[nodiscard]] compute::token_id bos() const override { return -1; }
  [[nodiscard]] compute::token_id eos() const override { return 256; }
  [[nodiscard]] std::span<const compute::token_id> end_ids() const override { return ends_; }
  [[nodiscard]] const std::string& chat_template() const override { return none_; }

private:
  std::vector<compute::token_id> ends_{256};
  std::string none_;
};

} // namespace hexgen::tests
