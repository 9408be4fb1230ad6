// From what the agents measured to where every layer goes: the plan that `serve` carries out.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace hexgen::scheduler {

/// What weights, KV and activations take of a device's memory: a CPU keeps a file's blocks, a GPU
/// what it was told to bring them to.
struct serving_sizes {
  std::uint64_t layer_bytes = 0;     // weights of one layer, degree 1
  std::uint64_t embedding_bytes = 0; // on the first stage's leader
  std::uint64_t head_bytes = 0;      // on the last stage, split by rank
  std::uint64_t kv_bytes_per_token_layer = 0;
  std::uint64_t activation_bytes = 0; // per rank
};

/// A device as the cluster sees it now.
struct serving_device {
  std::string node;
  std::uint32_t index = 0;
  std::uint64_t memory_bytes = 0;        // budget for weights, KV and activations
  double decode_us_per_layer = 0;        // one token through one whole layer, measured
  double prefill_us_per_token_layer = 0; // per token of a long run, measured
  double head_us = 0;                    // final norm + head for one token
  bool draining = false;                 // takes no part in new plans
  serving_sizes sizes{};                 // no layer_bytes: as the model says
};

/// One-way cost between two nodes. Missing pairs cannot talk; same-node pairs are implied.
struct serving_link {
  std::string from, to;
  double latency_us = 0;
  double bandwidth_gbps = 0; // 10^9 bit/s
};

/// The served model; its sizes in bytes are true for its file and KV type.
struct serving_model : serving_sizes {
  int layers = 0;
  int hidden = 0;
  int kv_heads = 0;
  double attention_share = 0.25;      // of a layer's work, cut at KV heads; the rest is FFN
  int ffn_leaves = 16;                // the FFN is cut at these (docs/design.md, Numerics)
};

struct serving_goal {
  int kv_tokens = 2048;                        // positions that a replica must hold at least
  int prompt_tokens = 128, output_tokens = 64; // the request that is optimised for
  int max_replicas = 0;                        // 0: as many as fit and pay
  int concurrency = 1; // requests that a replica serves at once; more than one: see plan_serving
  double tensor_parallel_overhead_us = 30; // per all-reduce beyond the link's own time
};

struct serving_stage {
  int first_layer = 0;
  int layers = 0;
  std::vector<std::size_t> devices; // indices into the device list; the first leads
  std::vector<double> speeds;       // what each device's share is in proportion to (make_shards)
};

struct serving_replica {
  std::vector<serving_stage> stages;
  double decode_us = 0;     // one token through the whole pipeline, hops and return included
  double bottleneck_us = 0; // the slowest stage's time per token: 1e6/this bounds tokens/s at one
                            // token per step and full pipeline; with concurrency, prompts included
  double request_s = 0;     // prompt + output of the goal, alone
};

struct serving_plan {
  bool feasible = false;
  std::vector<serving_replica> replicas;
  struct idle_device {
    std::size_t device = 0;
    std::string why;
  };
  std::vector<idle_device> idle;
  std::vector<std::string> why; // one line a stage: what bounds it, why it got its layers
  std::string missing;          // not feasible: what is missing, by how much, what would help
};

/// Best plan by dynamic programming over ordered stages of same-node device sets and an exact layer
/// split under each device's memory. With `max_replicas` 1 it is the pipeline of least request time
/// (exact up to a few dozen unlike devices; larger clusters are cut into neighbourhoods first).
/// With more, replicas pay when they raise the sum over replicas of
/// (1 / bottleneck) × sqrt(best request time / its request time): capacity, discounted for slow
/// answers. With a goal of `concurrency` the bottleneck is that of as many requests at once,
/// prompts and batched decode, one replica is chosen so too, and each pipeline's layers are shared
/// out so that its slowest stage is as fast as can be. Pure: equal inputs, equal plans.
[[nodiscard]] serving_plan plan_serving(const std::vector<serving_device>& devices,
                                        const std::vector<serving_link>& links,
                                        const serving_model& model, const serving_goal& goal);

/// A layout given by hand (`--stages 2,1 --layers 18,12`): devices are taken in order of node name
/// and index. Checks memory and links like the planner and prices it. `missing` says what is wrong.
struct manual_layout {
  std::vector<std::vector<int>> stages; // per replica: degrees
  std::vector<std::vector<int>> layers; // per replica: layers of each stage
  std::vector<std::vector<std::string>>
      placement; // per replica: "node/index" per rank; may be empty
};
[[nodiscard]] serving_plan plan_manual(const std::vector<serving_device>& devices,
                                       const std::vector<serving_link>& links,
                                       const serving_model& model, const serving_goal& goal,
                                       const manual_layout& layout);

} // namespace hexgen::scheduler
