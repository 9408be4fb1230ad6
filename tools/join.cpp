// hexgen join HOST:PORT: a node agent.
#include "actors/shell/agent_process.hpp"
#include "actors/shell/child_process.hpp"
#include "actors/shell/event_log.hpp"
#include "actors/shell/process_restart.hpp"
#include "tools/settings.hpp"
#include "tools/verbs.hpp"
#include "tools/worker_processes.hpp"

#include <CLI/CLI.hpp>

#include <memory>

namespace hexgen::tools {
namespace {

struct join_flags {
  std::string address, name, model, host;
  std::vector<std::string> devices;
  int port = 0;
  double price = 0;
  bool worker_processes = false;
  fabric_flags fabric;
};

/// Runs each worker in a process until a signal comes, and those that end again.
int supervise(const join_flags& f, const std::vector<worker_process>& workers,
              actors::stop_signal& stop) {
  const auto machine = f.name.empty() ? host_name() : f.name;
  for (const auto& w : workers)
    for (const auto& d : w.devices) // what is wrong is said once, here
      if (const auto device = parse_device(d, 0); device.options.kind == "cuda")
        check_gpu(device);
  const actors::event_log log(machine);
  std::vector<std::unique_ptr<actors::child_process>> children;
  for (std::size_t i = 0; i < workers.size(); ++i)
    children.push_back(std::make_unique<actors::child_process>(
        worker_command(actors::own_command(), machine, workers[i], i, workers.size(), f.port,
                       f.price),
        std::vector<std::string>{}, [&log, name = machine + workers[i].suffix](const auto& line) {
          log(line + " worker=" + name);
        }));
  do {
    for (const auto& child : children)
      child->poll();
  } while (!stop.wait_for(std::chrono::milliseconds(100)));
  return 0;
}

int join(const join_flags& f) {
  actors::stop_signal stop; // before any thread
  const auto devices = f.devices.empty() ? default_devices() : f.devices;
  const auto workers = worker_processes(devices, f.worker_processes);
  if (workers.size() > 1)
    return supervise(f, workers, stop);
  const auto coordinators = parse_addresses(f.address);
  const auto& coordinator = coordinators.front();
  actors::agent_process_options o;
  f.fabric.fill(o.fabric);
  o.fabric.name = f.name.empty() ? host_name() : f.name;
  o.fabric.cluster_token = cluster_token(f.fabric.token_file, false);
  // Without a word, be reached on the address that leads to the coordinator.
  o.fabric.listen_host = f.host == "none"                ? ""
                         : !f.host.empty()               ? f.host
                         : is_loopback(coordinator.host) ? "127.0.0.1"
                                                         : local_address_towards(coordinator.host);
  o.fabric.listen_port = f.port;
  o.coordinator = text_of(coordinators);
  o.model_path = f.model;
  o.price_per_hour = f.price;
  for (std::size_t i = 0; i < devices.size(); ++i) {
    auto d = parse_device(devices[i], static_cast<std::uint32_t>(i));
    if (d.options.kind == "cuda")
      complete_gpu(d);
    o.devices.push_back(std::move(d.options));
    o.descriptions.push_back(std::move(d.description));
  }
  return actors::run_agent(o, stop);
}

} // namespace

void add_join(CLI::App& app, action& chosen) {
  auto f = std::make_shared<join_flags>();
  auto* verb = app.add_subcommand(
      "join", "Add this machine to a cluster: measures its devices and links and runs the stages "
              "that it is given");
  auto env = [](CLI::Option* o) { return with_environment(o)->capture_default_str(); };
  verb->add_option(
          "ADDRESS", f->address,
          "HOST:PORT of hexgen serve's fabric; of those that stand by too, as A:7600,B:7600")
      ->required();
  env(verb->add_option("--name", f->name,
                       "The node's name, unique in the cluster (default: host "
                       "name)"));
  env(verb->add_option(
          "--device", f->devices,
          "cpu:threads=N,memory=SIZE,speed=F or cuda:N,memory=SIZE,weights=fp8|int4; may be "
          "repeated (default: cpu). speed below 1 holds the device back"))
      ->delimiter(';')
      ->allow_extra_args(false);
  env(verb->add_option("--model", f->model,
                       "Where this machine has the model (default: the path that the cluster "
                       "names, else this user's cache, else it fetches what it runs)"));
  env(verb->add_option(
          "--fabric-host", f->host,
          "Address to listen on for other nodes (default: the one towards ADDRESS); none: opens "
          "no port, this machine dials the others or others relay"))
      ->group("Fabric");
  env(verb->add_option("--fabric-port", f->port, "Its port; 0: any free one"))
      ->group("Fabric")
      ->check(CLI::Range(0, 65535));
  env(verb->add_option("--price-per-hour", f->price, "Dollars, for the plan's price"))
      ->check(CLI::NonNegativeNumber);
  verb->add_flag("--worker-processes", f->worker_processes,
                 "Give every device a process of its own, a node named after this one and the "
                 "device; GPUs have one wherever there are several devices");
  f->fabric.add(*verb);
  verb->callback([f, &chosen] { chosen = [f] { return join(*f); }; });
}

} // namespace hexgen::tools
