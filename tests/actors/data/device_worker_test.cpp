#include "actors/data/device_worker.hpp"
#include "compute/synthetic.hpp"
#include "tests/catch.hpp"

#include <future>
#include <thread>

using namespace hexgen;
using namespace hexgen::actors;

namespace {

class no_plane final : public data_plane {
public:
  bool send(const node_process&, transport::frame) override { return false; }
  void attend(const std::function<bool()>&, std::chrono::microseconds) override {}
};

} // namespace

TEST_CASE("a worker tells how much of a shard it has fetched and loaded") {
  const auto model =
      compute::make_synthetic_model(compute::tiny_config("llama"), compute::tensor_type::q8_0, 1);
  no_plane plane;
  device_options device;
  device.memory_bytes = 64ULL << 20;
  const auto worker = make_device_worker(
      device, plane, {[](std::uint64_t, std::uint64_t, const std::string&) {}, [](const auto&) {}});
  rank_spec spec;
  spec.replica = 3;
  spec.generation = 7;
  spec.part = compute::make_shards(model->config(), 0, 2, {1.0}).front();
  spec.rank_nodes = {{"a", 1}};
  spec.rank_devices = {0};
  spec.replica_node = {"a", 1};
  std::promise<void> fetched;
  std::promise<prepare_result> prepared;
  worker->prepare(
      spec,
      [&](const compute::shard&, const compute::byte_progress& tell) {
        tell(1, 2);
        fetched.get_future().wait();
        return model;
      },
      nullptr, [&](prepare_result r) { prepared.set_value(std::move(r)); });
  const auto loaded = [&] {
    const auto progress = worker->progress();
    REQUIRE(progress.size() == 1);
    CHECK(progress[0].replica == 3);
    CHECK(progress[0].generation == 7);
    return progress[0].loaded;
  };
  while (loaded() == 0)
    std::this_thread::yield();
  CHECK(loaded() == 0.25); // half of the half that fetching is
  fetched.set_value();
  CHECK(prepared.get_future().get().error == "");
  CHECK(loaded() == 1);
}
