#include "scheduler/engine/prefix_index.hpp"

#include <algorithm>
#include <bit>

namespace hexgen::scheduler {
namespace {

/// SipHash-2-4 (Aumasson, Bernstein 2012) over 64-bit words.
class sip {
public:
  explicit sip(const hash_key& k)
      : v0_(0x736f6d6570736575ULL ^ k.low), v1_(0x646f72616e646f6dULL ^ k.high),
        v2_(0x6c7967656e657261ULL ^ k.low), v3_(0x7465646279746573ULL ^ k.high) {}

  void word(std::uint64_t m) {
    v3_ ^= m;
    round();
    round();
    v0_ ^= m;
    bytes_ += 8;
  }

  std::uint64_t finish() {
    word(bytes_ << 56U);
    v2_ ^= 0xff;
    for (int i = 0; i < 4; ++i)
      round();
    return v0_ ^ v1_ ^ v2_ ^ v3_;
  }

private:
  void round() {
    v0_ += v1_;
    v1_ = std::rotl(v1_, 13) ^ v0_;
    v0_ = std::rotl(v0_, 32);
    v2_ += v3_;
    v3_ = std::rotl(v3_, 16) ^ v2_;
    v0_ += v3_;
    v3_ = std::rotl(v3_, 21) ^ v0_;
    v2_ += v1_;
    v1_ = std::rotl(v1_, 17) ^ v2_;
    v2_ = std::rotl(v2_, 32);
  }
  std::uint64_t v0_, v1_, v2_, v3_, bytes_ = 0;
};

} // namespace

std::uint64_t chain_hash(const hash_key& key, std::uint64_t parent, std::span<const token> tokens) {
  sip h(key);
  h.word(parent);
  for (std::size_t i = 0; i < tokens.size(); i += 2) {
    const std::uint64_t low = static_cast<std::uint32_t>(tokens[i]);
    const std::uint64_t high =
        i + 1 < tokens.size() ? static_cast<std::uint32_t>(tokens[i + 1]) : 0;
    h.word(low | high << 32U);
  }
  h.word(tokens.size());
  const std::uint64_t hash = h.finish();
  return hash == prefix_index::root ? 1 : hash;
}

void add_kept(kept_blocks& out, std::span<const token> tokens, std::span<const block_id> blocks) {
  std::uint64_t parent = prefix_index::root;
  for (const block_id block : blocks) {
    indexed_block b;
    b.parent = parent;
    b.block = block;
    std::copy_n(tokens.begin(), kv_block_tokens, b.tokens.begin());
    parent = chain_hash(out.key, parent, tokens.first(kv_block_tokens));
    tokens = tokens.subspan(kv_block_tokens);
    out.blocks.push_back(b);
  }
}

prefix_index::prefix_index(hash_key key) : key_(key) {}

std::optional<prefix_index::entry> prefix_index::find(std::uint64_t parent,
                                                      std::span<const token> tokens) const {
  const std::uint64_t hash = chain_hash(key_, parent, tokens);
  const auto it = nodes_.find(hash);
  if (it == nodes_.end() || it->second.parent != parent ||
      !std::equal(tokens.begin(), tokens.end(), it->second.tokens.begin(), it->second.tokens.end()))
    return std::nullopt;
  return entry{it->second.block, hash};
}

std::uint64_t prefix_index::insert(std::uint64_t parent, std::span<const token> tokens,
                                   block_id block) {
  const std::uint64_t hash = chain_hash(key_, parent, tokens);
  if (contains(block))
    return hash;
  indexed_block n;
  n.parent = parent;
  n.block = block;
  std::copy_n(tokens.begin(), std::min<std::size_t>(tokens.size(), kv_block_tokens),
              n.tokens.begin());
  if (nodes_.emplace(hash, n).second)
    hash_of_.emplace(block, hash);
  return hash;
}

bool prefix_index::contains(block_id block) const {
  return hash_of_.contains(block);
}

std::vector<indexed_block> prefix_index::all() const {
  std::vector<indexed_block> out;
  for (const auto& [hash, n] : nodes_)
    out.push_back(n);
  std::ranges::sort(out, {}, &indexed_block::block); // the same for equal histories
  return out;
}

void prefix_index::park(block_id block) {
  if (!parked_at_.contains(block))
    parked_at_.emplace(block, parked_.insert(parked_.end(), block));
}

void prefix_index::unpark(block_id block) {
  const auto it = parked_at_.find(block);
  if (it == parked_at_.end())
    return;
  parked_.erase(it->second);
  parked_at_.erase(it);
}

std::uint32_t prefix_index::parked() const {
  return static_cast<std::uint32_t>(parked_.size());
}

std::optional<block_id> prefix_index::evict() {
  if (parked_.empty())
    return std::nullopt;
  const block_id block = parked_.front();
  unpark(block);
  const auto it = hash_of_.find(block);
  nodes_.erase(it->second);
  hash_of_.erase(it);
  return block;
}

} // namespace hexgen::scheduler
