// Any bytes as a chat template's text and as a conversation: a prompt, or std::invalid_argument.
#include "compute/chat_template.hpp"

#include <cstdint>
#include <stdexcept>

using namespace hexgen::compute;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  const std::string content(text.substr(size / 2));
  try {
    const auto chat = find_chat_template(text, "", "<s>", "</s>");
    for (const auto* first : {"system", "user", "assistant", "tool"})
      try {
        (void)chat->render({{first, content}, {"user", content}, {"assistant", content}},
                           size % 2 == 0);
      } catch (const std::invalid_argument&) {
      }
  } catch (const std::invalid_argument&) {
  }
  return 0;
}
