// Any bytes as a JSON schema: refused by std::invalid_argument, or a grammar along which a text of
// the input's own making can be walked, with the masks of every step.
#include "compute/sampling/grammar.hpp"
#include "tests/compute/sampling/fake_tokenizer.hpp"

#include <cstdint>
#include <stdexcept>

using namespace hexgen::compute;

namespace {

std::shared_ptr<const tokenizer> byte_tokens() {
  static const auto tokens = [] {
    std::vector<std::string> pieces;
    for (int b = 0; b < 256; ++b)
      pieces.emplace_back(1, static_cast<char>(b));
    pieces.emplace_back("<end>");
    return std::make_shared<fake_tokenizer>(pieces, std::vector<token_id>{256});
  }();
  return tokens;
}

} // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string text(reinterpret_cast<const char*>(data), size);
  try {
    grammar_matcher matcher(compile_grammar(text, byte_tokens()));
    std::vector<float> logits(257);
    for (std::size_t step = 0; step < 40; ++step) {
      for (std::size_t i = 0; i < logits.size(); ++i)
        logits[i] = 1.0F + static_cast<float>((i * 7 + step * data[step % size]) % 31);
      matcher.mask(logits);
      std::size_t best = 0;
      for (std::size_t i = 0; i < logits.size(); ++i)
        if (logits[i] > logits[best])
          best = i;
      if (best == 256)
        break;
      matcher.accept(static_cast<token_id>(best));
    }
  } catch (const std::invalid_argument&) {
  }
  return 0;
}
