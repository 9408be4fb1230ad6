// A hop as a stage makes it: device thread, queue, fabric, queue, device thread.
#include "tools/bench/hop_side.hpp"

#include <condition_variable>
#include <cstdlib>
#include <deque>
#include <mutex>
#include <stdexcept>
#include <thread>
#include <utility>
#include <vector>

namespace hexgen::bench {
namespace {

using namespace transport;

/// The queue that actors/data gives a device thread.
class frame_queue {
public:
  void push(std::shared_ptr<const frame> f) {
    {
      const std::lock_guard lock(mutex_);
      frames_.push_back(std::move(f));
    }
    wake_.notify_one();
  }
  std::shared_ptr<const frame> pop(fabric& link) {
    link.attend(
        [&] {
          const std::lock_guard lock(mutex_);
          return !frames_.empty();
        },
        std::chrono::microseconds(20)); // as a rank waits for its next step
    std::unique_lock lock(mutex_);
    wake_.wait(lock, [&] { return !frames_.empty(); });
    auto f = std::move(frames_.front());
    frames_.pop_front();
    return f;
  }

private:
  std::mutex mutex_;
  std::condition_variable wake_;
  std::deque<std::shared_ptr<const frame>> frames_;
};

class end final : private fabric_handler {
public:
  end(const std::string& name, bool listens, bool ucx, wakeup wake) {
    fabric_options options;
    options.name = name;
    options.cluster_token = "a token for a benchmark on one machine";
    options.zone = ucx ? "" : "-";
    options.wake = wake;
    options.window_bytes = 1U << 30; // the benchmark's depth is the bound
    options.send_queue_bytes = 1U << 30;
    if (listens)
      options.listen_host = "127.0.0.1";
    link_ = make_fabric(options, *this);
    link_->start();
  }
  ~end() override { link_->stop(); }

  fabric& link() { return *link_; }
  std::shared_ptr<const frame> pop() { return queue_.pop(*link_); }
  void send(std::uint32_t type, buffer payload) {
    frame f;
    f.traffic_class = traffic::data;
    f.type = type;
    f.head.assign(60, 'h'); // what a step message of one sequence has
    f.payload = std::move(payload);
    while (link_->send(peer_.id, f) == send_result::would_block)
      std::this_thread::yield();
  }
  peer_info wait_up() {
    std::unique_lock lock(mutex_);
    if (!up_.wait_for(lock, std::chrono::seconds(20), [&] { return peer_.id != 0; }))
      throw std::runtime_error("bench_hop: the fabrics did not connect");
    return peer_;
  }

private:
  void on_up(const peer_info& peer) override {
    const std::lock_guard lock(mutex_);
    peer_ = peer;
    up_.notify_all();
  }
  void on_frame(const peer_info&, std::shared_ptr<const frame> f) override {
    queue_.push(std::move(f));
  }
  void on_down(const peer_info&, down_reason, const std::string&) override {}
  void on_dial_failed(const std::string&, const std::string&) override {}

  frame_queue queue_;
  std::mutex mutex_;
  std::condition_variable up_;
  peer_info peer_;
  std::unique_ptr<fabric> link_;
};

class driver final : public hop_driver {
public:
  driver(bool ucx, wakeup wake, const hop_channel& channel) : end_("driver", true, ucx, wake) {
    channel.put(end_.link().address());
    const link_kind expected = ucx ? link_kind::ucx : link_kind::tls;
    if (end_.wait_up().kind != expected)
      throw std::runtime_error("bench_hop: the pair did not choose the wanted kind of link");
  }
  void round_trip(std::size_t bytes) override {
    end_.send(wants_echo, payload(bytes));
    if (end_.pop()->payload.size() != bytes)
      throw std::runtime_error("bench_hop: a wrong echo");
  }
  void stream(std::size_t bytes, int count, int depth) override {
    int answered = 0;
    for (int sent = 0; sent < count; ++sent) {
      if (sent - answered == depth) {
        end_.pop();
        ++answered;
      }
      end_.send(wants_ack, payload(bytes));
    }
    for (; answered < count; ++answered)
      end_.pop();
  }

private:
  buffer payload(std::size_t bytes) {
    if (ready_.size() != bytes)
      ready_ = buffer::copy_of(std::vector<std::byte>(bytes));
    return ready_;
  }

  end end_;
  buffer ready_; // a stage also sends from a buffer that it keeps
};

} // namespace

std::unique_ptr<hop_driver> make_fabric_driver(bool ucx, wakeup wake, const hop_channel& channel) {
  return std::make_unique<driver>(ucx, wake, channel);
}

void serve_fabric(bool ucx, wakeup wake, const hop_channel& channel) {
  end other("other", false, ucx, wake);
  other.link().dial(channel.get());
  other.wait_up();
  for (;;) {
    const auto f = other.pop();
    other.send(f->type, f->type == wants_echo ? f->payload : buffer{});
  }
}

} // namespace hexgen::bench
