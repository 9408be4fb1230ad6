// Any bytes as tokenizer.json and as tokenizer.model: refused by file_error, or a tokenizer that
// encodes and decodes without a fault.
#include "compute/model_file.hpp"
#include "compute/text/tokenizer_readers.hpp"

#include <cstdint>
#include <cstdlib>
#include <stdexcept>

using namespace hexgen::compute;

namespace {

void use(const tokenizer& tokens) {
  try {
    const auto ids = tokens.encode("a b\xC3\xA9 <s>12\n", true, true);
    for (const auto id : ids)
      if (id < 0 || id >= tokens.vocab())
        std::abort();
    (void)tokens.decode(ids, false);
  } catch (const std::runtime_error&) { // a pattern that passes its limit of steps
  }
}

} // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view bytes(reinterpret_cast<const char*>(data), size);
  try {
    use(*tokenizer_of_json("input", bytes, {}));
  } catch (const file_error&) {
  }
  try {
    use(*tokenizer_of_model("input", bytes, {}));
  } catch (const file_error&) {
  }
  return 0;
}
