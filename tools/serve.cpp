// hexgen serve MODEL: coordinator, gateway, and a child for this machine's devices.
#include "actors/shell/serve_process.hpp"
#include "compute/model_catalog.hpp"
#include "tools/endpoint_flags.hpp"
#include "tools/layout_option.hpp"
#include "tools/settings.hpp"
#include "tools/verbs.hpp"
#include "transport/secrets.hpp"

#include <CLI/CLI.hpp>

#include <charconv>
#include <memory>

namespace hexgen::tools {
namespace {

struct serve_flags {
  std::string model, served_name, fabric_host = "127.0.0.1", name;
  std::string kernels = "fast", kv_type = "auto", stages, layers, placement;
  std::vector<std::string> devices;
  int fabric_port = 7600;
  std::string max_len = "0", kv_tokens = "2048", speculate = "off";
  std::string etcd, etcd_key = "hexgen/coordinator", etcd_ca, etcd_identity;
  int max_step_tokens = 0, max_running = 0; // 0: by this machine's devices
  int max_queued = 1024, max_replicas = 0, concurrency = 1;
  int heartbeat_ms = 250, suspect_ms = 1000, gone_ms = 2000, drain_ms = 30000;
  bool stage_recovery = false, no_prefix_cache = false, deterministic = false,
       random_weights = false;
  endpoint_flags endpoint;
  fabric_flags fabric;
};

/// "4096", "4k", "1M".
int parse_tokens(const std::string& text) {
  std::string digits = text;
  double factor = 1;
  if (!digits.empty() && (digits.back() == 'k' || digits.back() == 'K'))
    factor = digits.back() == 'k' ? 1000 : 1024;
  else if (!digits.empty() && (digits.back() == 'm' || digits.back() == 'M'))
    factor = digits.back() == 'm' ? 1e6 : 1 << 20;
  if (factor != 1)
    digits.pop_back();
  std::size_t used = 0;
  double value = -1;
  try {
    value = std::stod(digits, &used) * factor;
  } catch (const std::exception&) {
    used = 0;
  }
  if (used == 0 || used != digits.size() || value < 0 || value > (1 << 20))
    throw usage_error("a number of tokens is 0 to 1M, such as 4096 or 4k, not '" + text + "'");
  return static_cast<int>(value);
}

/// "off", or "ngram:N" with the most tokens of a draft.
std::uint32_t parse_speculation(const std::string& text) {
  if (text == "off")
    return 0;
  const std::string kind = "ngram:";
  int tokens = 0;
  const auto* end = text.data() + text.size();
  if (text.rfind(kind, 0) != 0 ||
      std::from_chars(text.data() + kind.size(), end, tokens).ptr != end || tokens < 1 ||
      tokens > actors::wire::limits::drafts)
    throw usage_error("--speculate is off or ngram:N with 1 to " +
                      std::to_string(actors::wire::limits::drafts) + " tokens, not '" + text + "'");
  return static_cast<std::uint32_t>(tokens);
}

/// A GPU reads its weights once for many tokens: it is given more of them.
void fill_widths(serve_flags& f, bool has_gpu) {
  if (f.max_step_tokens == 0)
    f.max_step_tokens = has_gpu ? 2048 : 512;
  if (f.max_running == 0)
    f.max_running = has_gpu ? 256 : 64;
}

std::vector<std::string> child_command(const serve_flags& f, bool& has_gpu) {
  if (f.devices.size() == 1 && f.devices[0] == "none")
    return {};
  std::vector<std::string> out{"/proc/self/exe", "join", "--name",
                               f.name.empty() ? host_name() : f.name};
  for (const auto& d : f.devices.empty() ? default_devices() : f.devices) {
    const auto device = parse_device(d, 0); // what is wrong is said here and not by the child
    if (device.options.kind == "cuda") {
      check_gpu(device);
      has_gpu = true;
    }
    out.insert(out.end(), {"--device", d});
  }
  if (!f.fabric.zone.empty())
    out.insert(out.end(), {"--zone", f.fabric.zone});
  if (!f.fabric.ucx_interface.empty())
    out.insert(out.end(), {"--ucx-interface", f.fabric.ucx_interface});
  out.insert(out.end(), {"--wakeup", f.fabric.wake});
  return out;
}

int serve(serve_flags f) {
  actors::stop_signal stop; // before any thread
  f.endpoint.require_key(f.fabric_host);
  actors::serve_process_options o;
  bool has_gpu = false;
  o.child = child_command(f, has_gpu);
  fill_widths(f, has_gpu);
  o.model_path = compute::resolve_model(f.model);
  if ((std::filesystem::path(o.model_path).extension() == ".yaml") != f.random_weights)
    throw usage_error("a shape (.yaml) and --random-weights go together");
  o.model_name =
      f.served_name.empty()
          ? (f.model == "smollm2" ? f.model : std::filesystem::path(o.model_path).stem().string())
          : f.served_name;
  o.chat_template = f.endpoint.chat_template;
  o.max_sequence = parse_tokens(f.max_len);
  o.kv_tokens = std::max(16, parse_tokens(f.kv_tokens));
  o.shutdown_timeout = f.endpoint.shutdown_timeout();
  o.journal = f.endpoint.journal;
  o.etcd = f.etcd;
  o.etcd_key = f.etcd_key;
  o.etcd_files = {f.etcd_ca, f.etcd_identity};
  o.recovery_wait = f.endpoint.recovery_wait();
  f.fabric.fill(o.fabric);
  o.fabric.name = actors::coordinator_name;
  o.fabric.listen_host = f.fabric_host;
  o.fabric.listen_port = f.fabric_port;
  o.fabric.api_key = f.endpoint.api_key;
  o.fabric.cluster_token = cluster_token(f.fabric.token_file, is_loopback(f.fabric_host));
  if (const auto weak = transport::weakness(o.fabric.cluster_token); !weak.empty())
    std::fprintf(stderr, "hexgen: warning: the cluster token is weak: %s\n", weak.c_str());
  o.fabric.heartbeat_ms = static_cast<std::uint32_t>(f.heartbeat_ms);
  o.fabric.down_ms = static_cast<std::uint32_t>(f.gone_ms);
  f.endpoint.fill(o.http);
  auto& c = o.coordinator;
  c.membership.heartbeat_ms = static_cast<std::uint32_t>(f.heartbeat_ms);
  c.membership.suspect_ms = static_cast<std::uint32_t>(f.suspect_ms);
  c.membership.gone_ms = static_cast<std::uint32_t>(f.gone_ms);
  c.generations.drain_ms = static_cast<std::uint32_t>(f.drain_ms);
  c.settings.kernels = f.kernels;
  c.settings.kv_type = f.kv_type == "auto" ? "f32" : f.kv_type;
  c.settings.max_step_tokens = static_cast<std::uint32_t>(f.max_step_tokens);
  c.settings.heartbeat_ms = c.membership.heartbeat_ms;
  c.settings.suspect_ms = c.membership.suspect_ms;
  c.settings.gone_ms = c.membership.gone_ms;
  c.settings.prefix_cache = !f.no_prefix_cache;
  if (f.stage_recovery && f.no_prefix_cache)
    throw usage_error("--stage-recovery finds KV by the prefix cache: leave it on");
  c.settings.stage_recovery = f.stage_recovery;
  c.settings.deterministic = f.deterministic;
  c.settings.max_running = static_cast<std::uint32_t>(f.max_running);
  c.settings.draft_tokens = parse_speculation(f.speculate);
  c.settings.max_queued = static_cast<std::uint32_t>(f.max_queued);
  c.goal.max_replicas = f.max_replicas;
  c.goal.concurrency = f.concurrency;
  c.layout = parse_layout(f.stages, f.layers, f.placement);
  o.child_environment = {"HEXGEN_CLUSTER_TOKEN=" + o.fabric.cluster_token};
  return actors::run_serve(std::move(o), stop);
}

} // namespace

void add_serve(CLI::App& app, action& chosen) {
  auto f = std::make_shared<serve_flags>();
  auto* verb = app.add_subcommand(
      "serve", "Serve a model: an OpenAI-compatible endpoint over this machine's devices and those "
               "of every node that joins");
  const char* group = "Model and devices"; // as --help shows them
  auto grouped = [&group](CLI::Option* o) { return o->group(group); };
  auto env = [&grouped](CLI::Option* o) {
    return grouped(with_environment(o)->capture_default_str());
  };
  verb->add_option("MODEL", f->model,
                   "A .gguf file, a Hugging Face folder, or smollm2 (the default model)")
      ->required();
  env(verb->add_option("--served-model-name", f->served_name, "The model's name in the API"));
  env(verb->add_option("--device", f->devices,
                       "A device of this machine: cpu:threads=N,memory=SIZE,speed=F, cuda:N, or "
                       "none; may be repeated (default: cpu)"))
      ->delimiter(';')
      ->allow_extra_args(false);
  env(verb->add_option("--name", f->name, "This machine's node name (default: host name)"));
  env(verb->add_option("--kernels", f->kernels, "CPU arithmetic: fast, or reference (float32)"))
      ->check(CLI::IsMember({"fast", "reference"}));
  grouped(verb->add_flag("--deterministic", f->deterministic,
                         "On GPUs too a token does not depend on what else is served, at a cost "
                         "(CPUs always)"));
  grouped(verb->add_flag("--random-weights", f->random_weights,
                         "MODEL is a shape such as config/models/llama-2-7b.yaml: serve random "
                         "weights of it, to measure"));

  group = "Batching and KV cache";
  env(verb->add_option("--max-model-len", f->max_len,
                       "Most tokens of a sequence, such as 4096 or 4k; 0: the model's own"));
  env(verb->add_option("--max-num-batched-tokens", f->max_step_tokens,
                       "Most tokens of one step; 0: 512, with a GPU here 2048"))
      ->check(CLI::Range(0, 65536));
  env(verb->add_option("--max-num-seqs", f->max_running,
                       "Most sequences of one step; 0: 64, with a GPU here 256"))
      ->check(CLI::Range(0, 4096));
  env(verb->add_option(
          "--max-num-queued-reqs", f->max_queued,
          "Most sequences of a replica that wait for a place among those; past it: 429"))
      ->check(CLI::Range(0, 1 << 20));
  env(verb->add_option("--kv-tokens", f->kv_tokens,
                       "Positions that a replica must have KV memory for at least"));
  env(verb->add_option("--kv-cache-dtype", f->kv_type, "KV cache type"))
      ->check(CLI::IsMember({"auto", "f32", "f16", "bf16", "q8"}));
  grouped(verb->add_flag("--no-enable-prefix-caching", f->no_prefix_cache,
                         "Do not share KV blocks of equal prompt beginnings"));
  env(verb->add_option("--speculate", f->speculate,
                       "ngram:N drafts up to N tokens a step from what a sequence repeats, while "
                       "places of --max-num-seqs are free; answers stay the same"));

  group = "Layout";
  env(verb->add_option("--expected-concurrency", f->concurrency,
                       "Requests at once that a replica's layers are shared out for; 1: the least "
                       "time of one"))
      ->check(CLI::Range(1, 65536));
  env(verb->add_option("--max-replicas", f->max_replicas, "Most replicas; 0: as many as pay"))
      ->check(CLI::Range(0, 1024));
  env(verb->add_option("--stages", f->stages,
                       "Layout by hand: degree of each stage, as 2,1; ';' between replicas"));
  env(verb->add_option("--layers", f->layers, "Layers of each stage, as 18,12"));
  env(verb->add_option("--placement", f->placement,
                       "Devices of the ranks in order, as n1/0,n2/0,n3/0; ';' between replicas"));

  f->endpoint.add(*verb);

  group = "Failures and changes";
  env(verb->add_option("--heartbeat-ms", f->heartbeat_ms, "Nodes' heartbeat"))
      ->check(CLI::Range(10, 60000));
  env(verb->add_option("--suspect-ms", f->suspect_ms, "Silence after which a node is suspect"))
      ->check(CLI::Range(20, 600000));
  env(verb->add_option("--gone-ms", f->gone_ms, "Silence after which a node is gone"))
      ->check(CLI::Range(40, 600000));
  env(verb->add_option("--drain-ms", f->drain_ms,
                       "A replaced replica's sequences have this long before they move"))
      ->check(CLI::Range(0, 3600000));
  grouped(verb->add_flag("--stage-recovery", f->stage_recovery,
                         "Stages keep what they pass on (4 bytes a value, beside the KV), so that "
                         "only a lost stage's layers are computed again"));
  env(verb->add_option("--etcd", f->etcd,
                       "HOST:PORT or https://HOST:PORT of an etcd: be the coordinator only while "
                       "holding a lease there, and stand by until then"));
  env(verb->add_option("--etcd-ca", f->etcd_ca,
                       "PEM file of those whose certificates https:// trusts (default: the "
                       "system's)"));
  env(verb->add_option("--etcd-identity", f->etcd_identity,
                       "PEM file with a certificate and its key, where etcd asks for one"));
  env(verb->add_option("--etcd-key", f->etcd_key, "The lease's key, one for each cluster"));

  group = "Fabric";
  env(verb->add_option("--fabric-host", f->fabric_host, "Address that nodes and clients join at"));
  env(verb->add_option("--fabric-port", f->fabric_port, "Its port; 0: any free one"))
      ->check(CLI::Range(0, 65535));
  f->fabric.add(*verb);
  verb->callback([f, &chosen] { chosen = [f] { return serve(*f); }; });
}

} // namespace hexgen::tools
