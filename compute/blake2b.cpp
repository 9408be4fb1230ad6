#include "compute/blake2b.hpp"

#include <algorithm>
#include <bit>
#include <cstring>

namespace hexgen::compute {

static_assert(std::endian::native == std::endian::little, "words are loaded in place");

namespace {

constexpr std::array<std::uint64_t, 8> initial{
    0x6a09e667f3bcc908U, 0xbb67ae8584caa73bU, 0x3c6ef372fe94f82bU, 0xa54ff53a5f1d36f1U,
    0x510e527fade682d1U, 0x9b05688c2b3e6c1fU, 0x1f83d9abfb41bd6bU, 0x5be0cd19137e2179U};

constexpr std::uint8_t order[10][16] = {{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15},
                                        {14, 10, 4, 8, 9, 15, 13, 6, 1, 12, 0, 2, 11, 7, 5, 3},
                                        {11, 8, 12, 0, 5, 2, 15, 13, 10, 14, 3, 6, 7, 1, 9, 4},
                                        {7, 9, 3, 1, 13, 12, 11, 14, 2, 6, 5, 10, 4, 0, 15, 8},
                                        {9, 0, 5, 7, 2, 4, 10, 15, 14, 1, 11, 12, 6, 8, 3, 13},
                                        {2, 12, 6, 10, 0, 11, 8, 3, 4, 13, 7, 5, 15, 14, 1, 9},
                                        {12, 5, 1, 15, 14, 13, 4, 10, 0, 7, 6, 3, 9, 2, 8, 11},
                                        {13, 11, 7, 14, 12, 1, 3, 9, 5, 0, 15, 4, 8, 6, 2, 10},
                                        {6, 15, 14, 9, 11, 3, 0, 8, 12, 2, 13, 7, 1, 4, 10, 5},
                                        {10, 2, 8, 4, 7, 6, 1, 5, 15, 11, 9, 14, 3, 12, 13, 0}};

} // namespace

blake2b::blake2b() : state_(initial), block_{} {
  state_[0] ^= 0x01010000U ^ sizeof(digest); // no key, one leaf, the result's size
}

void blake2b::compress(bool last) {
  std::uint64_t m[16];
  std::memcpy(m, block_.data(), sizeof m);
  std::uint64_t v[16];
  std::copy(state_.begin(), state_.end(), v);
  std::copy(initial.begin(), initial.end(), v + 8);
  v[12] ^= taken_;
  if (last)
    v[14] = ~v[14];
  const auto mix = [&](int a, int b, int c, int d, std::uint64_t x, std::uint64_t y) {
    v[a] += v[b] + x;
    v[d] = std::rotr(v[d] ^ v[a], 32);
    v[c] += v[d];
    v[b] = std::rotr(v[b] ^ v[c], 24);
    v[a] += v[b] + y;
    v[d] = std::rotr(v[d] ^ v[a], 16);
    v[c] += v[d];
    v[b] = std::rotr(v[b] ^ v[c], 63);
  };
  for (int round = 0; round < 12; ++round) {
    const auto* s = order[round % 10];
    mix(0, 4, 8, 12, m[s[0]], m[s[1]]);
    mix(1, 5, 9, 13, m[s[2]], m[s[3]]);
    mix(2, 6, 10, 14, m[s[4]], m[s[5]]);
    mix(3, 7, 11, 15, m[s[6]], m[s[7]]);
    mix(0, 5, 10, 15, m[s[8]], m[s[9]]);
    mix(1, 6, 11, 12, m[s[10]], m[s[11]]);
    mix(2, 7, 8, 13, m[s[12]], m[s[13]]);
    mix(3, 4, 9, 14, m[s[14]], m[s[15]]);
  }
  for (int i = 0; i < 8; ++i)
    state_[static_cast<std::size_t>(i)] ^= v[i] ^ v[i + 8];
}

void blake2b::update(std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    // A full block waits until more comes: the last one is compressed differently.
    if (filled_ == block_.size()) {
      taken_ += filled_;
      compress(false);
      filled_ = 0;
    }
    const auto count = std::min(bytes.size(), block_.size() - filled_);
    std::memcpy(block_.data() + filled_, bytes.data(), count);
    filled_ += count;
    bytes = bytes.subspan(count);
  }
}

digest blake2b::finish() {
  std::fill(block_.begin() + static_cast<std::ptrdiff_t>(filled_), block_.end(), std::byte{0});
  taken_ += filled_;
  compress(true);
  digest out;
  std::memcpy(out.data(), state_.data(), out.size());
  return out;
}

std::string to_hex(const digest& value) {
  static constexpr char digits[] = "0123456789abcdef";
  std::string out;
  for (const auto byte : value) {
    out += digits[std::to_integer<unsigned>(byte) >> 4];
    out += digits[std::to_integer<unsigned>(byte) & 0x0f];
  }
  return out;
}

} // namespace hexgen::compute
