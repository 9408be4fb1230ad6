// Which of a machine's devices share a process.
#pragma once

#include <string>
#include <vector>

namespace hexgen::tools {

/// A process of one machine's agent: a node of its own in the cluster.
struct worker_process {
  std::string suffix; // of the machine's name; "" when there is no other
  std::vector<std::string> devices;
};

/// A lost CUDA context costs its process, so each of several devices of which one is a GPU has a
/// process, but for the CPU devices, which share one; with `each` every device has. In the order of
/// `devices` (as parse_device() takes them).
[[nodiscard]] std::vector<worker_process> worker_processes(const std::vector<std::string>& devices,
                                                           bool each);

/// The command line of worker `index` of `count`, from that of the process that starts it: its own
/// name and devices, its share of the price, and, when a port was given, that port plus its index.
[[nodiscard]] std::vector<std::string> worker_command(const std::vector<std::string>& own,
                                                      const std::string& machine,
                                                      const worker_process& worker,
                                                      std::size_t index, std::size_t count,
                                                      int port, double price_per_hour);

} // namespace hexgen::tools
