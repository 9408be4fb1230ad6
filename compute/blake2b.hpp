// BLAKE2b with 32-byte results (RFC 7693): no library, several hundred MB/s.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

namespace hexgen::compute {

using digest = std::array<std::byte, 32>;

/// Takes bytes in pieces; the pieces' sizes do not matter.
class blake2b {
public:
  blake2b();
  void update(std::span<const std::byte> bytes);
  /// Ends the message; the object takes no more bytes.
  [[nodiscard]] digest finish();

private:
  void compress(bool last);

  std::array<std::uint64_t, 8> state_;
  std::array<std::byte, 128> block_;
  std::size_t filled_ = 0;
  std::uint64_t taken_ = 0; // bytes compressed so far
};

/// 64 lower-case hexadecimal digits.
[[nodiscard]] std::string to_hex(const digest& value);

} // namespace hexgen::compute
