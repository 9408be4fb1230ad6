#include "compute/cuda/step_buffers.hpp"

#include <algorithm>
#include <stdexcept>
#include <string>

namespace hexgen::compute::cuda {
namespace {

std::size_t even(std::size_t n) {
  return (n + 3) / 4 * 4;
} // 16-byte pieces

} // namespace

step_buffers::arrays step_buffers::place(std::int32_t* base) const {
  const auto tokens = static_cast<std::size_t>(capacity_.tokens);
  const auto sequences = static_cast<std::size_t>(capacity_.sequences);
  const auto rows = static_cast<std::size_t>(capacity_.logit_rows);
  auto take = [&](std::size_t n) {
    auto* p = base;
    base += even(n);
    return p;
  };
  arrays a{};
  a.ids = take(tokens);
  a.positions = take(tokens);
  a.slots = take(tokens);
  a.logit_rows = take(rows);
  a.decode_rows = take(sequences);
  a.lengths = take(sequences);
  a.runs = reinterpret_cast<query_run*>(take(4 * sequences));
  a.tiles = reinterpret_cast<query_tile*>(take(2 * (tokens / query_tile_rows + sequences)));
  a.copies = take(2 * static_cast<std::size_t>(capacity_.copies));
  a.tables = take(2 * sequences * static_cast<std::size_t>(capacity_.blocks_per_sequence));
  a.chosen = take(rows);
  return a;
}

step_buffers::step_buffers(const step_capacity& capacity) : capacity_(capacity) {
  // The last array's end, counted from a base of 0 without making such a pointer.
  const auto tokens = static_cast<std::size_t>(capacity.tokens);
  const auto sequences = static_cast<std::size_t>(capacity.sequences);
  const auto rows = static_cast<std::size_t>(capacity.logit_rows);
  ints_ = 3 * even(tokens) + even(rows) + 2 * even(sequences) +
          even(2 * sequences * static_cast<std::size_t>(capacity.blocks_per_sequence)) +
          even(4 * sequences) + even(2 * (tokens / query_tile_rows + sequences)) +
          even(2 * static_cast<std::size_t>(capacity.copies));
  for (auto& side : host_)
    side = pinned_buffer<std::int32_t>(ints_);
  device_ = device_buffer<std::int32_t>(ints_ + even(rows));
  host_arrays_ = place(host_[side_].data());
  device_arrays_ = place(device_.data());
}

void step_buffers::add_table(const step_entry& entry, int row, std::uint32_t kv_blocks) {
  const int last = entry.position + entry.tokens;
  const int blocks = (last + block_tokens - 1) / block_tokens;
  if (blocks > capacity_.blocks_per_sequence || static_cast<int>(entry.blocks.size()) < blocks)
    throw std::invalid_argument("sequence " + std::to_string(entry.sequence) + " has " +
                                std::to_string(entry.blocks.size()) + " blocks, needs " +
                                std::to_string(blocks) + " and may have " +
                                std::to_string(capacity_.blocks_per_sequence));
  auto* table = host_arrays_.tables + static_cast<std::size_t>(row) *
                                          static_cast<std::size_t>(capacity_.blocks_per_sequence);
  // Every block that was given, since decode_greedy walks on; past them block 0, never read.
  const int given = std::min(static_cast<int>(entry.blocks.size()), capacity_.blocks_per_sequence);
  table_rows_ = std::max(table_rows_, row + 1);
  table_width_ = std::max(table_width_, given);
  for (int b = 0; b < given; ++b) {
    const auto block = entry.blocks[static_cast<std::size_t>(b)];
    if (block >= kv_blocks)
      throw std::invalid_argument("block " + std::to_string(block) + " lies outside the pool of " +
                                  std::to_string(kv_blocks));
    table[b] = static_cast<std::int32_t>(block);
  }
}

void step_buffers::fill(const step& s, std::span<const std::int32_t> ids, std::uint32_t kv_blocks,
                        int padded_sequences) {
  side_ = 1 - side_;
  host_arrays_ = place(host_[side_].data());
  const auto& a = host_arrays_;
  if (s.tokens() > capacity_.tokens || s.logit_rows() > capacity_.logit_rows ||
      static_cast<int>(s.entries.size()) > capacity_.sequences ||
      static_cast<int>(s.copies.size()) > capacity_.copies)
    throw std::invalid_argument(
        "the step is wider than the executor was made for: " + std::to_string(s.tokens()) +
        " tokens, " + std::to_string(s.entries.size()) + " sequences");
  tokens_ = decodes_ = tiles_ = logit_rows_ = longest_ = table_rows_ = table_width_ = 0;
  int runs = 0;
  for (const auto& entry : s.entries) {
    const bool decode = entry.tokens == 1;
    // Decode tables come first: the decode kernel's sequence index is the table's row.
    const int table = decode ? decodes_ : capacity_.sequences + runs;
    add_table(entry, table, kv_blocks);
    const auto* blocks = a.tables + static_cast<std::size_t>(table) *
                                        static_cast<std::size_t>(capacity_.blocks_per_sequence);
    if (decode) {
      a.decode_rows[decodes_] = tokens_;
      a.lengths[decodes_] = entry.position + 1;
      longest_ = std::max(longest_, entry.position + 1);
      ++decodes_;
    } else {
      a.runs[runs] = {tokens_, entry.tokens, entry.position, table};
      for (int t = 0; t * query_tile_rows < entry.tokens; ++t)
        a.tiles[tiles_++] = {runs, t};
      ++runs;
    }
    for (int i = 0; i < entry.tokens; ++i) {
      const int position = entry.position + i;
      a.positions[tokens_] = position;
      a.slots[tokens_] = blocks[position / block_tokens] * block_tokens + position % block_tokens;
      a.ids[tokens_] = ids.empty() ? 0 : ids[static_cast<std::size_t>(tokens_)];
      if (i >= entry.tokens - entry.logits)
        a.logit_rows[logit_rows_++] = tokens_;
      ++tokens_;
    }
  }
  // The kernel takes them from the end, the longest first, so that none is left over at the end.
  std::stable_sort(a.tiles, a.tiles + tiles_, [&](const query_tile& one, const query_tile& two) {
    const auto keys = [&](const query_tile& t) {
      return a.runs[t.run].position + t.index * query_tile_rows;
    };
    return keys(one) < keys(two);
  });
  for (int i = tokens_; i < padded_sequences; ++i) {
    a.ids[i] = 0;
    a.positions[i] = 0;
    a.slots[i] = -1;
    a.decode_rows[i] = i;
    a.lengths[i] = 0;
    a.logit_rows[i] = i;
  }
  copies_ = 0;
  for (const auto& [from, to] : s.copies) {
    if (from >= kv_blocks || to >= kv_blocks)
      throw std::invalid_argument("a copy names a block outside the pool");
    a.copies[2 * copies_] = static_cast<std::int32_t>(from);
    a.copies[2 * copies_ + 1] = static_cast<std::int32_t>(to);
    ++copies_;
  }
}

void step_buffers::upload(cudaStream_t stream) {
  const auto before_tables =
      static_cast<std::size_t>(host_arrays_.tables - host_[side_].data()) * sizeof(std::int32_t);
  HEXGEN_CUDA_CHECK(cudaMemcpyAsync(device_.data(), host_[side_].data(), before_tables,
                                    cudaMemcpyHostToDevice, stream));
  // Most of a table is room for longer sequences.
  const auto pitch = static_cast<std::size_t>(capacity_.blocks_per_sequence) * sizeof(std::int32_t);
  if (table_rows_ > 0)
    HEXGEN_CUDA_CHECK(
        cudaMemcpy2DAsync(device_arrays_.tables, pitch, host_arrays_.tables, pitch,
                          static_cast<std::size_t>(table_width_) * sizeof(std::int32_t),
                          static_cast<std::size_t>(table_rows_), cudaMemcpyHostToDevice, stream));
}

} // namespace hexgen::compute::cuda
