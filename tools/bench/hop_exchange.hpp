// The timed exchange over an end that sends and receives one message at a time.
#pragma once

#include "tools/bench/hop_side.hpp"

#include <cstdint>
#include <utility>

namespace hexgen::bench {

struct message_header {
  std::uint32_t type = 0;
  std::uint32_t bytes = 0;
};

/// `End` has send(type, bytes) and message_header receive().
template <class End>
class exchange_driver final : public hop_driver {
public:
  template <class... Arguments>
  explicit exchange_driver(Arguments&&... arguments)
      : end_(std::forward<Arguments>(arguments)...) {}
  void round_trip(std::size_t bytes) override {
    end_.send(wants_echo, bytes);
    end_.receive();
  }
  void stream(std::size_t bytes, int count, int depth) override {
    int answered = 0;
    for (int sent = 0; sent < count; ++sent) {
      if (sent - answered == depth) {
        end_.receive();
        ++answered;
      }
      end_.send(wants_ack, bytes);
    }
    for (; answered < count; ++answered)
      end_.receive();
  }

private:
  End end_;
};

template <class End>
[[noreturn]] void answer(End& end) {
  for (;;) {
    const message_header header = end.receive();
    end.send(header.type, header.type == wants_echo ? header.bytes : 0);
  }
}

} // namespace hexgen::bench
