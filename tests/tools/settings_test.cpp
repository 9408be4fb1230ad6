#include "compute/cuda_backend.hpp"
#include "compute/gpu_readings.hpp"
#include "tests/catch.hpp"
#include "tools/cluster_table.hpp"
#include "tools/layout_option.hpp"
#include "tools/settings.hpp"

using namespace hexgen::tools;

TEST_CASE("sizes have units, decimal and binary") {
  CHECK(parse_bytes("96MiB") == 96ULL << 20);
  CHECK(parse_bytes("1.5GiB") == 1536ULL << 20);
  CHECK(parse_bytes("2GB") == 2'000'000'000ULL);
  CHECK(parse_bytes("1000") == 1000);
  for (const char* bad : {"", "MiB", "12XB", "-1MiB", "0", "1e30GiB", "12 MiB", "nan"})
    CHECK_THROWS_AS(parse_bytes(bad), usage_error);
}

TEST_CASE("devices are described in one word") {
  const auto d = parse_device("cpu:threads=2,memory=96MiB,speed=0.6", 3).options;
  CHECK(d.kind == "cpu");
  CHECK(d.index == 3);
  CHECK(d.threads == 2);
  CHECK(d.memory_bytes == 96ULL << 20);
  CHECK(d.speed == 0.6);
  CHECK(parse_device("cpu", 0).options.memory_bytes > 0);
  CHECK(parse_device("cuda:1", 0).options.ordinal == 1);
  CHECK(parse_device("cuda:0,memory=40GiB", 0).options.memory_bytes == 40ULL << 30);
  using hexgen::compute::gpu_weights;
  CHECK(parse_device("cuda:0", 0).options.weights == gpu_weights::bf16);
  CHECK(parse_device("cuda:0,weights=fp8", 0).options.weights == gpu_weights::fp8);
  CHECK(parse_device("cuda:0,weights=int4", 0).options.weights == gpu_weights::int4);
  CHECK(parse_device("cuda:0,weights=bf16", 0).options.weights == gpu_weights::bf16);
  for (const char* bad : {"gpu:0", "cpu:threads=0", "cpu:threads=1.5", "cpu:speed=0",
                          "cpu:speed=1.1", "cpu:speed=nan", "cpu:colour=red", "cuda:x",
                          "cpu:memory=", "cpu:weights=fp8", "cuda:0,weights=int3"})
    CHECK_THROWS_AS(parse_device(bad, 0), usage_error);
}

TEST_CASE("addresses have a default port") {
  CHECK(parse_address("host").text() == "host:7600");
  CHECK(parse_address("10.0.0.1:81").port == 81);
  for (const char* bad : {"", ":7600", "host:0", "host:70000", "host:http"})
    CHECK_THROWS_AS(parse_address(bad), usage_error);
  CHECK(is_loopback("127.0.0.1"));
  CHECK(is_loopback("localhost"));
  CHECK_FALSE(is_loopback("0.0.0.0"));
  CHECK_FALSE(is_loopback("10.0.0.1"));
  CHECK_FALSE(is_loopback("127.example.org"));
}

TEST_CASE("layouts by hand must fit together") {
  CHECK_FALSE(parse_layout("", "", "").has_value());
  const auto l = parse_layout("2,1;1", "18,12;30", "n1/0,n2/0,n3/0;n4/0");
  REQUIRE(l.has_value());
  CHECK(l->stages == std::vector<std::vector<int>>{{2, 1}, {1}});
  CHECK(l->layers == std::vector<std::vector<int>>{{18, 12}, {30}});
  CHECK(l->placement[1] == std::vector<std::string>{"n4/0"});
  CHECK_THROWS_AS(parse_layout("2,1", "", ""), usage_error);
  CHECK_THROWS_AS(parse_layout("2,1", "30", ""), usage_error);
  CHECK_THROWS_AS(parse_layout("2,x", "18,12", ""), usage_error);
  CHECK_THROWS_AS(parse_layout("2,0", "18,12", ""), usage_error);
  CHECK_THROWS_AS(parse_layout("2,1", "18,12", "n1/0,n2/0"), usage_error);
  CHECK_THROWS_AS(parse_layout("1;1", "30", ""), usage_error);
}

TEST_CASE("a cluster's status becomes a table, whatever is missing in it") {
  CHECK(cluster_table("{}").find("not ready") != std::string::npos);
  const auto table = cluster_table(
      R"({"model":"m","ready":true,"epoch":2,"nodes":[{"name":"n1","state":"ready","devices":[{"id":"n1/0"}]}],
          "plan":{"replicas":[{"replica":1,"stages":[{"first_layer":0,"layers":18,"devices":["n1/0","n2/0"]}]}],
          "why":["memory"]}})");
  CHECK(table.find("layers 0-17 (18) on n1/0 + n2/0") != std::string::npos);
  CHECK(table.find("why: memory") != std::string::npos);
  CHECK_THROWS_AS(cluster_table("[1]"), std::runtime_error);
  CHECK_THROWS_AS(cluster_table("{"), std::runtime_error);
}

TEST_CASE("a GPU that cannot be used is refused with what is missing") {
  std::string why;
  if (!hexgen::compute::read_gpus(why).empty())
    return; // this machine has one
  const auto device = parse_device("cuda:3", 0);
  try {
    check_gpu(device);
    FAIL("there is no GPU here");
  } catch (const std::runtime_error& e) {
    const std::string what = e.what();
    CHECK(what.find("cuda:3") != std::string::npos);
    if (hexgen::compute::built_with_cuda())
      CHECK(what.find(why) != std::string::npos);
    else
      CHECK(what.find("-DHEXGEN_CUDA=ON") != std::string::npos);
  }
}
