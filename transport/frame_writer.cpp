#include "transport/frame_writer.hpp"

#include <algorithm>
#include <utility>

namespace hexgen::transport {
namespace {

constexpr std::size_t batch_bytes = 32U << 10;        // of small frames in one write
constexpr std::size_t copied_chunk_bytes = 16U << 10; // up to here copying beats a second write

} // namespace

std::span<const std::byte> frame_writer::next() {
  if (staged_offset_ == staged_.size() && direct_.empty() && !fill())
    return {};
  if (staged_offset_ < staged_.size())
    return std::as_bytes(std::span(staged_)).subspan(staged_offset_);
  return direct_;
}

void frame_writer::wrote(std::size_t bytes) {
  if (staged_offset_ < staged_.size())
    staged_offset_ += bytes;
  else
    direct_ = direct_.subspan(bytes);
  if (staged_offset_ == staged_.size() && direct_.empty())
    batch_done();
}

void frame_writer::batch_done() {
  holder_ = buffer{};
  if (batch_cost_ != 0)
    port_.box.sent(batch_cost_);
  port_.frames_sent += batch_frames_;
  batch_cost_ = 0;
  batch_frames_ = 0;
}

bool frame_writer::pick(std::size_t& lane) {
  for (lane = 0; lane < current_.size(); ++lane) {
    if (current_[lane])
      return true;
    const auto traffic_class = static_cast<traffic>(lane);
    if (traffic_class == traffic::data && !takes_data_)
      continue;
    frame taken;
    if (port_.box.pop(traffic_class, taken)) {
      current_[lane] = outgoing{std::move(taken)};
      return true;
    }
  }
  return false;
}

bool frame_writer::fill() {
  staged_.clear();
  staged_offset_ = 0;
  staged_.swap(urgent_);
  std::size_t lane = 0;
  while (open_ && staged_.size() < batch_bytes && pick(lane)) {
    outgoing& out = *current_[lane];
    const std::span<const std::byte> payload = out.content.payload.bytes();
    const std::size_t chunk = std::min(payload.size() - out.offset, record_chunk_bytes);
    record_header header;
    header.traffic_class = out.content.traffic_class;
    header.chunk_bytes = static_cast<std::uint32_t>(chunk);
    header.kind = out.begun ? record_kind::more : record_kind::frame;
    if (!out.begun) {
      header.type = out.content.type;
      header.head_bytes = static_cast<std::uint32_t>(out.content.head.size());
      header.payload_bytes = static_cast<std::uint32_t>(payload.size());
    }
    append_header(staged_, header);
    if (!out.begun)
      staged_ += out.content.head;
    out.begun = true;
    const std::span<const std::byte> part = payload.subspan(out.offset, chunk);
    out.offset += chunk;
    const bool copied = chunk <= copied_chunk_bytes;
    if (copied) {
      staged_.append(reinterpret_cast<const char*>(part.data()), part.size());
    } else {
      direct_ = part;
      holder_ = out.content.payload;
    }
    if (out.offset == payload.size()) {
      batch_cost_ += window_cost(out.content.head.size(), payload.size());
      ++batch_frames_;
      current_[lane].reset();
    }
    if (!copied)
      break;
  }
  return !staged_.empty();
}

} // namespace hexgen::transport
