#include "scheduler/calibrated_cost.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

namespace hexgen::scheduler {

namespace {

constexpr double gib = 1024.0 * 1024 * 1024;
constexpr double infinity = std::numeric_limits<double>::infinity();
constexpr double activation_bytes_per_value = 2;
constexpr double token_bytes = 4;
// Of a Llama-2-70B layer, which the catalogue's profiles were measured with.
constexpr double profiled_parameters = 855.6e6;
constexpr double profiled_bytes = 2 * profiled_parameters;
constexpr double largest_batch = 1024; // no engine's steps are larger in practice

/// Piecewise linear; constant below the first point, the last slope beyond the last.
double interpolate(const std::vector<double>& x, const std::vector<double>& y, double at) {
  if (at <= x.front() || x.size() == 1)
    return y.front() * (x.size() == 1 ? std::max(1.0, at / x.front()) : 1.0);
  std::size_t i = 1;
  while (i + 1 < x.size() && x[i] < at)
    ++i;
  return y[i - 1] + (at - x[i - 1]) * (y[i] - y[i - 1]) / (x[i] - x[i - 1]);
}

const config::layer_profile* profile_of(const config::device_kind& kind, int degree) {
  for (const auto& profile : kind.profiles)
    if (profile.degree == degree)
      return &profile;
  return nullptr;
}

} // namespace

calibrated_cost::calibrated_cost(const pool& pool, const config::model_shape& model,
                                 const calibration& setting)
    : cost_model(pool, model), setting_(setting) {}

/// One layer's products for `decode` + `prefill` tokens on one device of the stage, KV not read.
double calibrated_cost::layer_s(int kind_number, int degree, double decode, double prefill) const {
  const auto& kind = pool_.kind(kind_number);
  const double parameters = model_.layer_parameters();
  const double bytes = parameters * model_.bytes_per_parameter;
  const double tokens = decode + prefill;
  if (tokens <= 0)
    return 0;
  if (const auto* profile = profile_of(kind, degree); profile != nullptr) {
    // Small steps are bound by bytes, long ones by operations: scale each part by its own size.
    const double memory_part = bytes / profiled_bytes;
    const double compute_part = parameters / profiled_parameters;
    double seconds = 0;
    if (decode > 0)
      seconds = interpolate(profile->decode_tokens, profile->decode_ms, decode) * 1e-3 *
                (decode < 64 ? memory_part : compute_part);
    if (prefill > 0) {
      const double first = profile->prefill_tokens.front();
      const double long_run =
          prefill >= first ? interpolate(profile->prefill_tokens, profile->prefill_ms, prefill)
                           : profile->prefill_ms.front() * prefill / first;
      const double floor = profile->decode_ms.front() * memory_part;
      // A mixed step reads the weights once: the prefill's tokens ride on the decode's scan.
      const double alone = std::max(long_run * compute_part, decode > 0 ? 0.0 : floor);
      seconds = decode > 0 ? std::max(seconds, floor * 1e-3) + alone * 1e-3 : alone * 1e-3;
    }
    return seconds;
  }
  const double compute =
      2 * parameters * tokens / (degree * kind.fp16_tflops * 1e12 * kind.compute_efficiency);
  const double memory = bytes / (degree * kind.bandwidth_gbs * 1e9 * kind.memory_efficiency);
  return std::max(compute, memory);
}

double calibrated_cost::head_s(int kind_number, int degree, double tokens) const {
  const auto& kind = pool_.kind(kind_number);
  const double parameters = model_.embedding_parameters();
  return std::max(2 * parameters * tokens /
                      (degree * kind.fp16_tflops * 1e12 * kind.compute_efficiency),
                  parameters * model_.bytes_per_parameter /
                      (degree * kind.bandwidth_gbs * 1e9 * kind.memory_efficiency));
}

/// Two ring all-reduces, each 2(n-1) hops of 1/n of the bytes.
double calibrated_cost::all_reduce_s(const std::vector<int>& devices, double tokens) const {
  if (devices.size() < 2)
    return 0;
  const auto n = static_cast<double>(devices.size());
  const double bytes = tokens * model_.hidden * activation_bytes_per_value;
  double slowest = 0;
  for (std::size_t i = 0; i < devices.size(); ++i) {
    const auto link = pool_.between(devices[i], devices[(i + 1) % devices.size()]);
    slowest = std::max(slowest, link.usable() ? link.alpha_s + bytes / (n * link.beta) : infinity);
  }
  return 2 * 2 * (n - 1) * slowest;
}

double calibrated_cost::slowest(const std::vector<int>& devices, double decode, double context,
                                double prefill) const {
  const auto degree = static_cast<int>(devices.size());
  double most = 0;
  int last_kind = -1;
  for (const int device : devices) {
    const int number = pool_.kind_of(device);
    if (number == last_kind)
      continue;
    last_kind = number;
    const auto& kind = pool_.kind(number);
    const double kv = decode * context * model_.kv_bytes_per_token_layer() /
                      (degree * kind.bandwidth_gbs * 1e9 * kind.memory_efficiency);
    most = std::max(most, layer_s(number, degree, decode, prefill) + kv);
  }
  return most;
}

double calibrated_cost::step_s(const std::vector<int>& devices, int layers, stage_position where,
                               double decode, double context, double prefill) const {
  const auto degree = static_cast<int>(devices.size());
  double seconds = layers * (slowest(devices, decode, context, prefill) +
                             all_reduce_s(devices, decode + prefill));
  if (where.last)
    seconds += head_s(pool_.kind_of(devices.front()), degree, std::max(1.0, decode));
  return seconds;
}

stage_cost calibrated_cost::stage(const std::vector<int>& devices, int layers, stage_position where,
                                  int prompt, int output) const {
  const double context = prompt + output / 2.0;
  stage_cost cost;
  cost.compute_s = layers * (slowest(devices, 0, 0, prompt) +
                             output * slowest(devices, setting_.concurrency, context, 0));
  if (where.last)
    cost.compute_s += output * head_s(pool_.kind_of(devices.front()),
                                      static_cast<int>(devices.size()), setting_.concurrency);
  cost.tensor_parallel_s = layers * (all_reduce_s(devices, prompt) +
                                     output * all_reduce_s(devices, setting_.concurrency));
  cost.memory_bytes = weights_bytes(static_cast<int>(devices.size()), layers, where) +
                      setting_.sequences * setting_.context * model_.kv_bytes_per_token_layer() *
                          layers / static_cast<double>(devices.size()) +
                      activation_bytes();
  return cost;
}

double calibrated_cost::busy(const std::vector<int>& devices, int layers, stage_position where,
                             int prompt, int output) const {
  const double context = prompt + output / 2.0, batch = setting_.concurrency;
  const double prefill = step_s(devices, layers, {}, 0, 0, prompt);
  return prefill + output * step_s(devices, layers, where, batch, context, 0) / batch;
}

double calibrated_cost::least_busy(const std::vector<int>& devices, int layers, int prompt,
                                   int output) const {
  // Prompts of many requests in one step, decode at whatever batch is best.
  double prefill = infinity, decode = infinity;
  for (double batch = 1; batch <= largest_batch; batch *= 2) {
    prefill = std::min(prefill, layers * slowest(devices, 0, 0, prompt * batch) / batch);
    decode = std::min(decode, layers * slowest(devices, batch, 0, 0) / batch);
  }
  return prefill + output * decode;
}

double calibrated_cost::step_hop_s(const std::vector<int>& from, const std::vector<int>& to,
                                   double tokens) const {
  const double bytes = tokens * model_.hidden * activation_bytes_per_value;
  double best = infinity;
  for (const int a : from)
    for (const int b : to)
      if (const auto link = pool_.between(a, b); link.usable())
        best = std::min(best, link.alpha_s + bytes / link.beta);
  return best;
}

double calibrated_cost::hop(const std::vector<int>& from, const std::vector<int>& to, int prompt,
                            int output) const {
  return step_hop_s(from, to, prompt) + output * step_hop_s(from, to, setting_.concurrency);
}

double calibrated_cost::way_back(const std::vector<int>& from, const std::vector<int>& to,
                                 int output) const {
  if (from == to)
    return 0;
  double best = infinity;
  for (const int a : from)
    for (const int b : to) {
      if (pool_.node_of(a) == pool_.node_of(b))
        return 0; // the token stays in the node
      if (const auto link = pool_.between(a, b); link.usable())
        best = std::min(best, link.alpha_s + token_bytes / link.beta);
    }
  return (output + 1) * best;
}

double calibrated_cost::weights_bytes(int degree, int layers, stage_position where) const {
  double bytes = layers * model_.layer_parameters() * model_.bytes_per_parameter / degree;
  const double table = model_.embedding_parameters() * model_.bytes_per_parameter;
  if (where.first)
    bytes += table; // on the leader
  if (where.last && !(where.first && model_.tied_embedding))
    bytes += table / degree;
  return bytes;
}

double calibrated_cost::activation_bytes() const {
  return setting_.activation_tokens * activation_bytes_per_value *
         (4.0 * model_.hidden + 2.0 * model_.ffn);
}

int calibrated_cost::layer_cap(int kind, int degree, stage_position where) const {
  const double fixed = weights_bytes(degree, 0, where) + activation_bytes();
  const double layer = weights_bytes(degree, 1, {}) + setting_.sequences * setting_.context *
                                                          model_.kv_bytes_per_token_layer() /
                                                          degree;
  const double have = (pool_.kind(kind).memory_gib - setting_.reserve_gib) * gib - fixed;
  return have < 0 ? 0 : static_cast<int>(std::min(1e6, std::floor(have / layer)));
}

double calibrated_cost::room(int device) const {
  return (pool_.kind(pool_.kind_of(device)).memory_gib - setting_.reserve_gib) * gib;
}

double calibrated_cost::kv_tokens(const std::vector<int>& devices, int layers,
                                  stage_position where) const {
  double tokens = infinity;
  const auto degree = static_cast<double>(devices.size());
  for (const int device : devices) {
    const double free = room(device) -
                        weights_bytes(static_cast<int>(devices.size()), layers, where) -
                        activation_bytes();
    tokens = std::min(tokens, free / (model_.kv_bytes_per_token_layer() * layers / degree));
  }
  return std::max(0.0, tokens);
}

} // namespace hexgen::scheduler
