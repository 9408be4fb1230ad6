// The framing of a link: records of a fixed header, a head and a chunk of payload.
#pragma once

#include "transport/fabric.hpp"

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>

namespace hexgen::transport {

/// What a record is. All but `frame` and `more` carry a link.proto message as head.
enum class record_kind : std::uint8_t {
  hello = 1, // first, both ways
  offer = 2,
  ready = 3,    // no body: this side has settled on the connection
  refuse = 4,   // the sender closes after it
  ucx_seen = 5, // no body: the sender received our active message, so UCX works that way
  frame = 6,    // head and the first chunk of a frame's payload
  more = 7,     // the next chunk of the class's open frame
  ping = 8,
  pong = 9, // the ping's body
  credit = 10,
  goodbye = 11, // the sender leaves on purpose
  // Only to peers whose hello says that they know these.
  relay_ask = 12,     // join me with that peer of yours
  relay_offer = 13,   // to both of them: dial me once more, with this ticket
  relay_refusal = 14, // to who asked
};

/// 20 bytes on the wire, little endian: kind, class, two zero bytes, then the four numbers.
struct record_header {
  record_kind kind = record_kind::frame;
  traffic traffic_class = traffic::control;
  std::uint32_t type = 0; // frame: frame::type
  std::uint32_t head_bytes = 0;
  std::uint32_t payload_bytes = 0; // frame: of the whole frame
  std::uint32_t chunk_bytes = 0;   // in this record
};

inline constexpr std::size_t record_header_bytes = 20;
inline constexpr std::size_t record_chunk_bytes = 256U << 10; // control waits for one at most
inline constexpr std::size_t link_message_bytes = 8U << 10;   // a record's body that is no frame

/// Appends the header's 20 bytes.
void append_header(std::string& out, const record_header& header);
/// Appends a record that is not part of a frame.
void append_record(std::string& out, record_kind kind, const std::string& body);

/// The bytes of a frame against the consumer's window: what it really costs to hold one.
[[nodiscard]] std::uint64_t window_cost(std::size_t head_bytes, std::size_t payload_bytes);

/// A frame as it was read, its payload still without window accounting.
struct received_frame {
  traffic traffic_class = traffic::control;
  std::uint32_t type = 0;
  std::string head;
  std::shared_ptr<std::byte[]> payload;
  std::size_t payload_bytes = 0;
};

/// Decodes records from a byte stream. Bytes go straight to where they belong: ask `wanted()`,
/// put 1..size bytes there, call `advance()`. Checks every number before it allocates.
class record_reader {
public:
  enum class event : std::uint8_t { none, message, frame, error };

  /// Frames are an error until this is called (the peer is authenticated and up).
  void allow_frames() { frames_allowed_ = true; }
  [[nodiscard]] std::span<std::byte> wanted();
  event advance(std::size_t bytes);

  /// After event::message, until the next advance.
  [[nodiscard]] record_kind kind() const { return header_.kind; }
  [[nodiscard]] const std::string& body() const { return head_; }
  /// After event::frame; moves the frame out.
  [[nodiscard]] received_frame take_frame() { return std::move(done_); }
  /// After event::error: which field, in plain words.
  [[nodiscard]] const std::string& error() const { return error_; }
  /// Bytes of payload held for frames that are not complete.
  [[nodiscard]] std::size_t held_bytes() const;

private:
  enum class part : std::uint8_t { header, head, chunk };
  struct assembly {
    bool open = false;
    received_frame frame;
    std::size_t filled = 0;
  };

  event fail(std::string why);
  event on_header();
  event on_head();
  event on_chunk();
  assembly& current() { return open_[static_cast<std::size_t>(header_.traffic_class)]; }

  bool frames_allowed_ = false;
  part part_ = part::header;
  std::array<std::byte, record_header_bytes> raw_{};
  std::size_t filled_ = 0; // of the current part
  record_header header_;
  std::string head_;
  std::array<assembly, 3> open_;
  received_frame done_;
  std::string error_;
};

} // namespace hexgen::transport
