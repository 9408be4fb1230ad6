// Which KV blocks are held, by how many, and which may be handed out again.
#pragma once

#include "scheduler/engine/types.hpp"

#include <optional>

namespace hexgen::scheduler {

/// Reference-counted block ids. A block whose last holder lets go is given out again only after
/// every step that names it has returned. Not thread-safe.
class block_allocator {
public:
  explicit block_allocator(std::uint32_t blocks);

  [[nodiscard]] std::uint32_t blocks() const;
  /// Blocks that allocate() can give now.
  [[nodiscard]] std::uint32_t free() const;
  [[nodiscard]] std::uint32_t holders(block_id block) const;

  /// A block with one holder, or nothing.
  std::optional<block_id> allocate();
  /// That block, of a fresh allocator, with one holder.
  void claim(block_id block);
  void add_holder(block_id block);
  /// True when nobody holds it any more; the caller then keeps its content for the prefix index or
  /// gives it back by recycle().
  bool drop_holder(block_id block);
  /// Gives back a block without holders: free at once, or when the steps naming it have returned.
  void recycle(block_id block);

  /// Step `step` reads or writes `block`.
  void named(block_id block, std::uint64_t step);
  /// All steps up to and including `step` have returned.
  void returned(std::uint64_t step);
  [[nodiscard]] bool in_flight(block_id block) const;
  /// The last step that has returned.
  [[nodiscard]] std::uint64_t returned() const { return returned_; }

private:
  struct slot {
    std::uint32_t holders = 0;
    std::uint64_t last_step = 0;
  };
  std::vector<slot> slots_;
  std::vector<block_id> free_;
  std::vector<block_id> resting_; // without holders, named by a step in flight
  std::uint64_t returned_ = 0;
};

} // namespace hexgen::scheduler
