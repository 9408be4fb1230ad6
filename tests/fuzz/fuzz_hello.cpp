// The first message of a peer: decoded with bounds, and what is decoded encodes again.
#include "transport/hello.hpp"
#include "transport/protocol.hpp"
#include "transport/tls_context.hpp"

#include <cstdint>
#include <cstdlib>
#include <string>

using namespace hexgen::transport;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string body(reinterpret_cast<const char*>(data), size);
  static_cast<void>(parse_identity(body));
  hello_message hello;
  std::string error;
  if (!decode(body, hello, error)) {
    if (error.empty())
      std::abort();
    return 0;
  }
  if (hello.version != protocol_version)
    return 0;
  hello_message again;
  if (!valid_name(hello.name) || !decode(encode(hello), again, error) || again.name != hello.name ||
      again.ucx_address != hello.ucx_address || again.window_bytes != hello.window_bytes)
    std::abort();
  return 0;
}
