// A step's bookkeeping: made on the host in pinned memory, one copy to the device.
#pragma once

#include "compute/cuda/attention.hpp"
#include "compute/cuda/device_buffer.hpp"
#include "compute/step.hpp"

#include <cstdint>
#include <span>
#include <vector>

namespace hexgen::compute::cuda {

struct step_capacity {
  int tokens = 0, sequences = 0, logit_rows = 0, blocks_per_sequence = 0, copies = 0;
};

/// Integer arrays in one allocation; the same offsets on host and device. The host side is there
/// twice: one may be filled while the other is on its way.
class step_buffers {
public:
  explicit step_buffers(const step_capacity& capacity);

  /// Fills the host side that was not filled last. Entries of one token go to the decode kernel
  /// unless `prefill_only`. Pads the decode arrays up to `padded_sequences` (0: not). Throws
  /// std::invalid_argument when the step is wider than the capacity or names a block >= kv_blocks.
  void fill(const step& s, std::span<const std::int32_t> ids, std::uint32_t kv_blocks,
            int padded_sequences);
  void upload(cudaStream_t stream);

  struct arrays {
    std::int32_t *ids, *positions, *slots; // [tokens]
    std::int32_t* logit_rows;              // [logit_rows] rows of hidden
    std::int32_t *decode_rows, *lengths;   // [sequences]
    std::int32_t* tables;                  // [2 * sequences][blocks_per_sequence]
    query_run* runs;                       // [sequences]
    query_tile* tiles;                     // [tokens / query_tile_rows + sequences]
    std::int32_t* copies;                  // [copies][2]
    std::int32_t* chosen;                  // [logit_rows] device only: kept by an upload
  };
  [[nodiscard]] const arrays& device() const { return device_arrays_; }
  [[nodiscard]] int tokens() const { return tokens_; }
  [[nodiscard]] int decodes() const { return decodes_; }
  [[nodiscard]] int tiles() const { return tiles_; }
  [[nodiscard]] int logit_rows() const { return logit_rows_; }
  [[nodiscard]] int copies() const { return copies_; }
  [[nodiscard]] int longest() const { return longest_; } // attended positions of a decode entry
  [[nodiscard]] int table_stride() const { return capacity_.blocks_per_sequence; }

private:
  arrays place(std::int32_t* base) const;
  void add_table(const step_entry& entry, int row, std::uint32_t kv_blocks);

  step_capacity capacity_;
  std::size_t ints_ = 0; // of all arrays but `chosen`
  pinned_buffer<std::int32_t> host_[2];
  int side_ = 0;
  device_buffer<std::int32_t> device_;
  arrays host_arrays_{};
  arrays device_arrays_{};
  int tokens_ = 0, decodes_ = 0, tiles_ = 0, logit_rows_ = 0, copies_ = 0, longest_ = 0;
  int table_rows_ = 0, table_width_ = 0; // of tables, used
};

} // namespace hexgen::compute::cuda
