#include "compute/sampling/token_trie.hpp"

#include <algorithm>
#include <mutex>
#include <string>
#include <utility>

namespace hexgen::compute {

namespace {

// Longer tokens cannot come out of a grammar; none of the served vocabularies has one.
constexpr std::size_t longest_token_bytes = 4096;

} // namespace

token_trie::token_trie(const tokenizer& tokens) {
  std::vector<std::pair<std::string, token_id>> sorted;
  for (token_id id = 0; id < tokens.vocab(); ++id) {
    if (tokens.is_special(id))
      continue;
    auto bytes = tokens.piece(id, false);
    if (!bytes.empty() && bytes.size() <= longest_token_bytes)
      sorted.emplace_back(std::move(bytes), id);
  }
  std::sort(sorted.begin(), sorted.end());
  std::vector<std::uint32_t> open; // nodes of the current path
  std::string path;
  const auto close_to = [&](std::size_t depth) {
    while (open.size() > depth) {
      nodes_[open.back()].skip = static_cast<std::uint32_t>(nodes_.size());
      open.pop_back();
    }
    path.resize(depth);
  };
  for (const auto& [bytes, id] : sorted) {
    const auto shared = static_cast<std::size_t>(
        std::mismatch(path.begin(), path.end(), bytes.begin(), bytes.end()).first - path.begin());
    close_to(shared);
    for (std::size_t i = shared; i < bytes.size(); ++i) {
      open.push_back(static_cast<std::uint32_t>(nodes_.size()));
      path += bytes[i];
      // Tokens of ancestors were added before, for a prefix sorts first.
      nodes_.push_back({static_cast<std::uint8_t>(bytes[i]), static_cast<std::uint16_t>(i + 1), 0,
                        static_cast<std::uint32_t>(tokens_.size())});
    }
    tokens_.push_back(id);
    max_depth_ = std::max(max_depth_, bytes.size());
  }
  close_to(0);
  nodes_.push_back({0, 0, 0, static_cast<std::uint32_t>(tokens_.size())});
}

std::shared_ptr<const token_trie> token_trie::of(const std::shared_ptr<const tokenizer>& tokens) {
  struct entry {
    std::weak_ptr<const tokenizer> owner;
    std::shared_ptr<const token_trie> trie;
  };
  static std::mutex mutex;
  static std::vector<entry> entries; // one for each living tokenizer: a handful
  const std::lock_guard lock(mutex);
  std::erase_if(entries, [](const entry& e) { return e.owner.expired(); });
  for (const auto& e : entries)
    if (e.owner.lock() == tokens)
      return e.trie;
  entries.push_back({tokens, std::make_shared<const token_trie>(*tokens)});
  return entries.back().trie;
}

} // namespace hexgen::compute
