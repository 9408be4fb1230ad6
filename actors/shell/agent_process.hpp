// A node agent as a process: fabric, device workers, the agent and its replicas.
#pragma once

#include "actors/data/device_worker.hpp"
#include "actors/shell/stop_signal.hpp"
#include "transport/fabric.hpp"

#include <string>
#include <vector>

namespace hexgen::actors {

struct agent_process_options {
  transport::fabric_options fabric; // name, listen address, token, zone, wake-up
  std::string coordinator;          // host:port, or several: coordinator_addresses
  std::string model_path;           // where this machine has the model; empty: ask the cluster
  double price_per_hour = 0;
  std::vector<device_options> devices;
  std::vector<std::string> descriptions;
};

/// Runs until a signal comes or the cluster sends the node away. Returns the exit code: 0 after a
/// signal, 1 otherwise. A node that was declared gone comes back as a new incarnation; after a
/// device was lost that only a new process can use the program starts anew (process_restart.hpp).
int run_agent(const agent_process_options& options, stop_signal& stop);

} // namespace hexgen::actors
