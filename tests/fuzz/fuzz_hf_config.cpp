// Any bytes as config.json: refused by file_error, or a configuration within its bounds.
#include "compute/files/hf_config.hpp"
#include "compute/files/stored_model.hpp"

#include <cstdint>

using namespace hexgen::compute;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  model_config config;
  try {
    config = parse_hf_config({reinterpret_cast<const char*>(data), size}, "input");
  } catch (const file_error&) {
    return 0;
  }
  check_config(config, "input"); // an error here is a finding
  return 0;
}
