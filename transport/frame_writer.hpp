// Turns what waits for a peer into runs of bytes for its stream, most urgent first.
#pragma once

#include "transport/peer_port.hpp"
#include "transport/record.hpp"

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>

namespace hexgen::transport {

/// Small frames are gathered into one run; large payloads are written from where they lie, in
/// chunks, so that control overtakes them. Transport thread.
class frame_writer {
public:
  explicit frame_writer(peer_port& port) : port_(port) {}

  /// Queues a record that is not part of a frame; it goes before all frames.
  void urgent(record_kind kind, const std::string& body) { append_record(urgent_, kind, body); }
  /// Frames are taken from the port only once the link is up; data may go another way.
  void open(bool takes_data) {
    open_ = true;
    takes_data_ = takes_data;
  }
  /// The bytes to write next; empty: nothing may go now.
  [[nodiscard]] std::span<const std::byte> next();
  /// The first `bytes` of next() were written.
  void wrote(std::size_t bytes);

private:
  struct outgoing {
    frame content;
    std::size_t offset = 0; // of the payload
    bool begun = false;
  };

  bool fill();
  bool pick(std::size_t& lane);
  void batch_done();

  peer_port& port_;
  bool open_ = false;
  bool takes_data_ = true;
  std::string urgent_;
  std::array<std::optional<outgoing>, 3> current_; // by class: begun or about to
  std::string staged_;                             // records being written
  std::size_t staged_offset_ = 0;
  std::span<const std::byte> direct_; // payload after staged_, owned by holder_
  buffer holder_;
  std::uint64_t batch_cost_ = 0; // window cost of the frames that this batch completes
  std::uint64_t batch_frames_ = 0;
};

} // namespace hexgen::transport
