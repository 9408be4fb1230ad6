#include "transport/zone.hpp"

#include <unistd.h>

#include <array>
#include <cstddef>
#include <fstream>

namespace hexgen::transport {
namespace {

std::string link_target(const char* path) {
  std::array<char, 128> text{};
  const ssize_t length = ::readlink(path, text.data(), text.size());
  return length > 0 ? std::string(text.data(), static_cast<std::size_t>(length)) : std::string();
}

} // namespace

std::string default_zone() {
  std::string boot;
  std::ifstream("/proc/sys/kernel/random/boot_id") >> boot;
  const std::string network = link_target("/proc/self/ns/net");
  // Shared memory is opened through /proc/PID/fd, so the pid namespace must be the same too.
  const std::string processes = link_target("/proc/self/ns/pid");
  if (boot.empty() || network.empty() || processes.empty())
    return "-";
  return boot + "/" + network + "/" + processes + "/" + std::to_string(::getuid());
}

std::string resolve_zone(const std::string& option) {
  const std::string zone = option.empty() ? default_zone() : option;
  return zone == "-" ? std::string() : zone;
}

} // namespace hexgen::transport
