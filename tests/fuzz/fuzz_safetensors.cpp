// Any bytes as a safetensors file: refused by file_error, or the tensors fill the data.
#include "compute/files/hf_model.hpp"
#include "compute/files/safetensors.hpp"

#include <cstdint>
#include <cstdlib>

using namespace hexgen::compute;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  try {
    const auto file =
        safetensors_file::parse("input", std::as_bytes(std::span(data, size)), nullptr);
    std::size_t bytes = 0;
    for (const auto& tensor : file->tensors()) {
      if (file->find(tensor.name) != &tensor)
        std::abort();
      (void)gguf_tensor_name(tensor.name);
      bytes += tensor.bytes.size();
    }
    if (bytes > size)
      std::abort();
  } catch (const file_error&) {
  }
  return 0;
}
