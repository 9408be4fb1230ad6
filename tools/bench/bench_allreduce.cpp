// What ranks in processes of their own pay for one exchange of partial sums, as a tensor-parallel
// layer makes two of.
//   bench_allreduce [--ranks 2] [--floats 576] [--runs 10]
// Prints the median over runs of each run's least and middle exchange, in microseconds.
#include "actors/data/link_collective.hpp"
#include "actors/data/node_links.hpp"
#include "tools/bench/hop_channel.hpp"
#include "tools/bench/median.hpp"
#include "transport/proto/hexgen.pb.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <stdexcept>
#include <thread>
#include <vector>

namespace hexgen::bench {
namespace {

constexpr int exchanges = 3000;

std::string name_of(int rank) {
  return "rank-" + std::to_string(rank);
}

std::uint64_t incarnation_of(int rank) {
  return static_cast<std::uint64_t>(rank) + 1;
}

/// One rank: a fabric, a mailbox and the collective over them, as a device's thread has them.
class rank_process final : private transport::fabric_handler {
public:
  rank_process(int rank, int ranks, std::size_t floats)
      : links_(name_of(rank)), values_(floats),
        parts_(static_cast<std::size_t>(ranks), std::vector<float>(floats)) {
    transport::fabric_options options;
    options.name = name_of(rank);
    options.incarnation = incarnation_of(rank);
    options.cluster_token = "a token for a benchmark on one machine";
    options.listen_host = "127.0.0.1";
    fabric_ = transport::make_fabric(options, *this);
    links_.attach(*fabric_, [](const auto&) {});
    actors::link_collective::place where;
    where.rank = rank;
    for (int r = 0; r < ranks; ++r)
      where.rank_nodes.push_back({name_of(r), incarnation_of(r)});
    group_ = std::make_unique<actors::link_collective>(where, links_, mail_, slot_, limiter_);
    fabric_->start();
    for (std::size_t i = 0; i < floats; ++i)
      values_[i] = static_cast<float>(rank + 1);
  }
  ~rank_process() override { fabric_->stop(); }

  [[nodiscard]] std::string address() const { return fabric_->address(); }
  void dial(const std::string& address) { fabric_->dial(address); }
  void wait_for_peers(int count) const {
    const auto until = std::chrono::steady_clock::now() + std::chrono::seconds(20);
    while (peers_ < count) {
      if (std::chrono::steady_clock::now() > until)
        throw std::runtime_error("bench_allreduce: the ranks did not connect");
      std::this_thread::sleep_for(std::chrono::milliseconds(5));
    }
  }

  /// The sum over all ranks, added in their order, as every rank computes it.
  void exchange(std::uint64_t step) {
    std::vector<std::span<std::byte>> all;
    for (auto& part : parts_)
      all.push_back(std::as_writable_bytes(std::span(part)));
    slot_.lock();
    group_->begin_step(step);
    group_->all_gather(std::as_bytes(std::span<const float>(values_)), all);
    sum_.assign(values_.size(), 0.0F);
    for (const auto& part : parts_)
      for (std::size_t i = 0; i < part.size(); ++i)
        sum_[i] += part[i];
    group_->end_step();
    slot_.unlock();
    mail_.forget_before(step);
    const auto ranks = static_cast<float>(parts_.size());
    if (sum_.front() != ranks * (ranks + 1) / 2)
      throw std::runtime_error("bench_allreduce: a wrong sum");
  }

private:
  void on_up(const transport::peer_info& peer) override {
    links_.up(peer);
    ++peers_;
  }
  void on_frame(const transport::peer_info&, std::shared_ptr<const transport::frame> f) override {
    mail_.deliver(actors::wire::decode_collective(f->head), f);
  }
  void on_down(const transport::peer_info&, transport::down_reason,
               const std::string& detail) override {
    mail_.abort(detail);
  }
  void on_dial_failed(const std::string&, const std::string& detail) override {
    mail_.abort(detail);
  }

  actors::node_links links_;
  actors::collective_mailbox mail_;
  actors::compute_slot slot_;
  actors::speed_limiter limiter_{1.0};
  std::vector<float> values_;
  std::vector<std::vector<float>> parts_;
  std::vector<float> sum_;
  std::atomic<int> peers_{0};
  std::unique_ptr<actors::link_collective> group_;
  std::unique_ptr<transport::fabric> fabric_; // last: its thread uses the rest
};

// Rank r dials those before it, whose addresses its parent tells.
void serve(int rank, int ranks, std::size_t floats) {
  const hop_channel channel;
  rank_process self(rank, ranks, floats);
  for (int r = 0; r < rank; ++r)
    self.dial(channel.get());
  channel.put(self.address());
  self.wait_for_peers(ranks - 1);
  channel.put("ready");
  for (std::uint64_t step = 1; step <= exchanges; ++step)
    self.exchange(step);
  (void)channel.get(); // until the parent closes it
}

std::vector<double> one_run(int ranks, std::size_t floats) {
  std::vector<child_end> children;
  std::vector<double> took_us;
  {
    rank_process self(0, ranks, floats);
    std::vector<std::string> addresses{self.address()};
    for (int r = 1; r < ranks; ++r) {
      children.emplace_back(std::vector<std::string>{"bench_allreduce", "--rank", std::to_string(r),
                                                     "--ranks", std::to_string(ranks), "--floats",
                                                     std::to_string(floats)});
      for (const auto& address : addresses)
        children.back().channel().put(address);
      addresses.push_back(children.back().channel().get());
    }
    self.wait_for_peers(ranks - 1);
    for (const auto& c : children)
      (void)c.channel().get();
    for (std::uint64_t step = 1; step <= exchanges; ++step) {
      const auto begin = std::chrono::steady_clock::now();
      self.exchange(step);
      took_us.push_back(
          std::chrono::duration<double, std::micro>(std::chrono::steady_clock::now() - begin)
              .count());
    }
  }
  return {took_us.begin() + exchanges / 10, took_us.end()}; // the first warm up
}

int run(int argc, char** argv) {
  int ranks = 2, runs = 10, rank = 0;
  std::size_t floats = 576;
  for (int i = 1; i < argc; i += 2) {
    const std::string option = argv[i];
    const int value = i + 1 < argc ? std::atoi(argv[i + 1]) : 0;
    if (value <= 0)
      throw std::runtime_error("bench_allreduce [--ranks N] [--floats N] [--runs N]");
    if (option == "--ranks")
      ranks = value;
    else if (option == "--floats")
      floats = static_cast<std::size_t>(value);
    else if (option == "--runs")
      runs = value;
    else if (option == "--rank")
      rank = value;
    else
      throw std::runtime_error("bench_allreduce: " + option + " is not an option");
  }
  if (rank > 0) {
    serve(rank, ranks, floats);
    return 0;
  }
  std::vector<double> least, middle;
  for (int i = 0; i < runs; ++i) {
    const auto took_us = one_run(ranks, floats);
    least.push_back(*std::min_element(took_us.begin(), took_us.end()));
    middle.push_back(median(took_us));
    std::fprintf(stderr, "run %d of %d\r", i + 1, runs);
  }
  std::fprintf(stderr, "\n");
  std::printf("%d ranks, %zu floats, %d runs: min %.2f us, p50 %.2f us (medians over the runs)\n",
              ranks, floats, runs, median(least), median(middle));
  return 0;
}

} // namespace
} // namespace hexgen::bench

int main(int argc, char** argv) {
  try {
    return hexgen::bench::run(argc, argv);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
}
