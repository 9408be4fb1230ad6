#include "transport/record.hpp"

#include "transport/payload_memory.hpp"

#include <utility>

namespace hexgen::transport {
namespace {

void put_u32(std::string& out, std::uint32_t value) {
  for (int shift = 0; shift < 32; shift += 8)
    out.push_back(static_cast<char>((value >> shift) & 0xFFU));
}

std::uint32_t get_u32(const std::byte* in) {
  std::uint32_t value = 0;
  for (unsigned i = 0; i < 4; ++i)
    value |= std::to_integer<std::uint32_t>(in[i]) << (8U * i);
  return value;
}

bool known(std::uint8_t kind) {
  return kind >= static_cast<std::uint8_t>(record_kind::hello) &&
         kind <= static_cast<std::uint8_t>(record_kind::relay_refusal);
}

} // namespace

void append_header(std::string& out, const record_header& header) {
  out.push_back(static_cast<char>(header.kind));
  out.push_back(static_cast<char>(header.traffic_class));
  out.append(2, '\0');
  put_u32(out, header.type);
  put_u32(out, header.head_bytes);
  put_u32(out, header.payload_bytes);
  put_u32(out, header.chunk_bytes);
}

void append_record(std::string& out, record_kind kind, const std::string& body) {
  record_header header;
  header.kind = kind;
  header.head_bytes = static_cast<std::uint32_t>(body.size());
  append_header(out, header);
  out += body;
}

std::uint64_t window_cost(std::size_t head_bytes, std::size_t payload_bytes) {
  constexpr std::uint64_t bookkeeping = 128; // so that empty frames are not free
  return bookkeeping + head_bytes + payload_bytes;
}

std::span<std::byte> record_reader::wanted() {
  switch (part_) {
  case part::header:
    return std::span(raw_).subspan(filled_);
  case part::head:
    return std::as_writable_bytes(std::span(head_)).subspan(filled_);
  case part::chunk:
    break;
  }
  assembly& open = current();
  return {open.frame.payload.get() + open.filled, header_.chunk_bytes - filled_};
}

record_reader::event record_reader::advance(std::size_t bytes) {
  filled_ += bytes;
  switch (part_) {
  case part::header:
    return filled_ < record_header_bytes ? event::none : on_header();
  case part::head:
    return filled_ < header_.head_bytes ? event::none : on_head();
  case part::chunk:
    break;
  }
  current().filled += bytes;
  return filled_ < header_.chunk_bytes ? event::none : on_chunk();
}

std::size_t record_reader::held_bytes() const {
  std::size_t sum = 0;
  for (const assembly& open : open_)
    sum += open.open ? open.frame.payload_bytes : 0;
  return sum;
}

record_reader::event record_reader::fail(std::string why) {
  error_ = std::move(why);
  return event::error;
}

record_reader::event record_reader::on_header() {
  const auto kind = std::to_integer<std::uint8_t>(raw_[0]);
  const auto traffic_class = std::to_integer<std::uint8_t>(raw_[1]);
  if (!known(kind))
    return fail("record kind " + std::to_string(kind) + " is unknown");
  if (traffic_class > static_cast<std::uint8_t>(traffic::bulk))
    return fail("traffic class " + std::to_string(traffic_class) + " is unknown");
  if (raw_[2] != std::byte{} || raw_[3] != std::byte{})
    return fail("a record's reserved bytes are not zero");
  header_.kind = static_cast<record_kind>(kind);
  header_.traffic_class = static_cast<traffic>(traffic_class);
  header_.type = get_u32(&raw_[4]);
  header_.head_bytes = get_u32(&raw_[8]);
  header_.payload_bytes = get_u32(&raw_[12]);
  header_.chunk_bytes = get_u32(&raw_[16]);
  filled_ = 0;

  if (header_.kind != record_kind::frame && header_.kind != record_kind::more) {
    if (header_.head_bytes > link_message_bytes)
      return fail("a link message of " + std::to_string(header_.head_bytes) + " bytes");
    if (header_.payload_bytes != 0 || header_.chunk_bytes != 0)
      return fail("a link message with a payload");
  } else {
    if (!frames_allowed_)
      return fail("a frame before the hand-shake is done");
    if (header_.chunk_bytes > record_chunk_bytes)
      return fail("a chunk of " + std::to_string(header_.chunk_bytes) + " bytes");
    assembly& open = current();
    if (header_.kind == record_kind::more) {
      if (!open.open)
        return fail("a continued frame that never began");
      if (header_.head_bytes != 0 || header_.chunk_bytes == 0 ||
          header_.chunk_bytes > open.frame.payload_bytes - open.filled)
        return fail("a continued frame's chunk does not fit it");
    } else {
      if (open.open)
        return fail("a frame inside another of its class");
      if (header_.head_bytes > limits::head_bytes)
        return fail("a frame's head of " + std::to_string(header_.head_bytes) + " bytes");
      if (header_.payload_bytes > limits::payload_bytes)
        return fail("a frame's payload of " + std::to_string(header_.payload_bytes) + " bytes");
      if (header_.chunk_bytes > header_.payload_bytes ||
          (header_.chunk_bytes == 0 && header_.payload_bytes != 0))
        return fail("a frame's first chunk does not fit its payload");
      open.open = true;
      open.filled = 0;
      open.frame.traffic_class = header_.traffic_class;
      open.frame.type = header_.type;
      open.frame.payload_bytes = header_.payload_bytes;
      if (header_.payload_bytes != 0)
        open.frame.payload = take_payload_memory(header_.payload_bytes);
    }
  }
  head_.resize(header_.head_bytes);
  if (header_.head_bytes != 0) {
    part_ = part::head;
    return event::none;
  }
  return on_head();
}

record_reader::event record_reader::on_head() {
  filled_ = 0;
  if (header_.kind != record_kind::frame && header_.kind != record_kind::more) {
    part_ = part::header;
    return event::message;
  }
  if (header_.kind == record_kind::frame)
    current().frame.head = std::move(head_);
  if (header_.chunk_bytes != 0) {
    part_ = part::chunk;
    return event::none;
  }
  return on_chunk();
}

record_reader::event record_reader::on_chunk() {
  part_ = part::header;
  filled_ = 0;
  assembly& open = current();
  if (open.filled < open.frame.payload_bytes)
    return event::none;
  done_ = std::move(open.frame);
  open = assembly{};
  return event::frame;
}

} // namespace hexgen::transport
