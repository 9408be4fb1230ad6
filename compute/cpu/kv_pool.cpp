#include "compute/cpu/kv_pool.hpp"

#include <cstring>

namespace hexgen::compute {

void kv_pool::copy_block(std::uint32_t from, std::uint32_t to) {
  if (from != to && block_bytes_ != 0)
    std::memcpy(memory_.data() + block_bytes_ * to, memory_.data() + block_bytes_ * from,
                block_bytes_);
}

} // namespace hexgen::compute
