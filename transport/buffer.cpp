#include "transport/fabric.hpp"

#include <cstring>

namespace hexgen::transport {

buffer buffer::copy_of(std::span<const std::byte> bytes) {
  std::shared_ptr<std::byte[]> owner(new std::byte[bytes.size()]);
  if (!bytes.empty())
    std::memcpy(owner.get(), bytes.data(), bytes.size());
  const std::span<const std::byte> view(owner.get(), bytes.size());
  return {std::move(owner), view};
}

} // namespace hexgen::transport
