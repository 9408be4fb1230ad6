#include "transport/payload_memory.hpp"

#include <sys/mman.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cstdlib>
#include <mutex>
#include <new>
#include <vector>

namespace hexgen::transport {
namespace {

constexpr std::size_t smallest_kept = 64U << 10;
constexpr std::size_t largest_kept = 128U << 20;
constexpr std::size_t kept_limit = 192U << 20;
constexpr std::size_t huge_page = 2U << 20;
constexpr std::size_t alignment = 64;

/// Powers of two from smallest_kept on. Never destroyed: frames may outlive everything.
class pool {
public:
  void* take(std::size_t capacity) {
    {
      const std::lock_guard lock(mutex_);
      shelf& s = shelf_of(capacity);
      if (!s.pieces.empty()) {
        void* piece = s.pieces.back();
        s.pieces.pop_back();
        kept_ -= capacity;
        s.unused = std::min(s.unused, s.pieces.size());
        return piece;
      }
    }
    const std::size_t align = capacity >= huge_page ? huge_page : alignment;
    void* piece = std::aligned_alloc(align, capacity);
    if (piece == nullptr)
      throw std::bad_alloc();
    if (capacity >= huge_page)
      ::madvise(piece, capacity, MADV_HUGEPAGE); // a wish; without it only slower
    return piece;
  }

  void give_back(void* piece, std::size_t capacity) {
    {
      const std::lock_guard lock(mutex_);
      if (kept_ + capacity <= kept_limit) {
        shelf_of(capacity).pieces.push_back(piece);
        kept_ += capacity;
        return;
      }
    }
    std::free(piece);
  }

  void trim() {
    std::vector<void*> freed;
    {
      const std::lock_guard lock(mutex_);
      for (std::size_t i = 0; i < shelves_.size(); ++i) {
        shelf& s = shelves_[i];
        // The last taken is the first reused, so what nobody touched lies at the bottom.
        freed.insert(freed.end(), s.pieces.begin(),
                     s.pieces.begin() + static_cast<std::ptrdiff_t>(s.unused));
        s.pieces.erase(s.pieces.begin(), s.pieces.begin() + static_cast<std::ptrdiff_t>(s.unused));
        kept_ -= s.unused * (smallest_kept << i);
        s.unused = s.pieces.size();
      }
    }
    for (void* piece : freed)
      std::free(piece);
  }

  std::size_t kept() {
    const std::lock_guard lock(mutex_);
    return kept_;
  }

private:
  struct shelf {
    std::vector<void*> pieces;
    std::size_t unused = 0; // the fewest that lay here since the last trim
  };
  shelf& shelf_of(std::size_t capacity) {
    return shelves_[static_cast<std::size_t>(std::countr_zero(capacity / smallest_kept))];
  }

  std::mutex mutex_;
  std::array<shelf, 12> shelves_; // 64 KiB to 128 MiB
  std::size_t kept_ = 0;
};

pool& the_pool() {
  static pool* const made = new pool;
  return *made;
}

} // namespace

std::shared_ptr<std::byte[]> take_payload_memory(std::size_t bytes) {
  if (bytes < smallest_kept || bytes > largest_kept)
    return {static_cast<std::byte*>(::operator new (bytes, std::align_val_t{alignment})),
            [](std::byte* piece) { ::operator delete (piece, std::align_val_t{alignment}); }};
  const std::size_t capacity = std::bit_ceil(bytes);
  return {static_cast<std::byte*>(the_pool().take(capacity)),
          [capacity](std::byte* piece) { the_pool().give_back(piece, capacity); }};
}

void trim_payload_memory() {
  the_pool().trim();
}

std::size_t kept_payload_bytes() {
  return the_pool().kept();
}

} // namespace hexgen::transport
