// Options that several verbs share, and the values that they are made of.
#pragma once

#include "actors/data/device_worker.hpp"
#include "transport/fabric.hpp"

#include <stdexcept>
#include <string>
#include <vector>

namespace CLI {
class App;
class Option;
} // namespace CLI

namespace hexgen::tools {

/// What the user typed cannot be used: exit code 2.
struct usage_error : std::runtime_error {
  using std::runtime_error::runtime_error;
};

/// "--fabric-port" is also HEXGEN_FABRIC_PORT.
CLI::Option* with_environment(CLI::Option* option);

/// "96MiB", "2GiB", "1.5GB", "1000": bytes.
[[nodiscard]] std::uint64_t parse_bytes(const std::string& text);

struct parsed_device {
  actors::device_options options;
  std::string description; // for people
};
/// "cpu", "cpu:threads=2,memory=2GiB,speed=0.5", "cuda:0,memory=40GiB,weights=int4". Throws
/// usage_error.
[[nodiscard]] parsed_device parse_device(const std::string& text, std::uint32_t index);
/// Throws usage_error when this program has no CUDA backend, std::runtime_error when the machine
/// has no such GPU; both say what to do. Makes no CUDA context.
void check_gpu(const parsed_device& device);
/// A cuda device's budget (all that is free but a reserve, or less if memory= said so) and name.
/// Throws as check_gpu().
void complete_gpu(parsed_device& device);
/// One CPU device of all threads and half of the memory.
[[nodiscard]] std::vector<std::string> default_devices();

[[nodiscard]] bool is_loopback(const std::string& host);
/// "host:port" or "host" (port 7600). Throws usage_error.
struct host_port {
  std::string host;
  int port = 7600;
  [[nodiscard]] std::string text() const { return host + ":" + std::to_string(port); }
};
[[nodiscard]] host_port parse_address(const std::string& text);
/// Several with commas between them; at least one.
[[nodiscard]] std::vector<host_port> parse_addresses(const std::string& text);
[[nodiscard]] std::string text_of(const std::vector<host_port>& addresses);
/// The address of this machine that packets to `host` leave from.
[[nodiscard]] std::string local_address_towards(const std::string& host);
[[nodiscard]] std::string host_name();

/// $XDG_STATE_HOME/hexgen/cluster-token or ~/.local/state/hexgen/cluster-token.
[[nodiscard]] std::string default_token_file();
/// From HEXGEN_CLUSTER_TOKEN, else `file`, else the default file. `make`: an absent default file is
/// written with a new token. Throws usage_error saying how to give one.
[[nodiscard]] std::string cluster_token(const std::string& file, bool make);

/// Options of every verb that has a fabric.
struct fabric_flags {
  std::string token_file, zone, ucx_interface, wake = "event", advertise;
  unsigned relay_pairs = 64;
  void add(CLI::App& app);
  void fill(transport::fabric_options& options) const;
};

/// Options of the verbs that speak to a running process.
struct client_flags {
  std::string address = "127.0.0.1:7600", api_key;
  void add(CLI::App& app);
  /// A client's connection options.
  [[nodiscard]] transport::fabric_options options() const;
};

} // namespace hexgen::tools
