#include "tools/settings.hpp"

#include "compute/cuda_backend.hpp"
#include "compute/gpu_readings.hpp"
#include "transport/address.hpp"
#include "transport/secrets.hpp"

#include <CLI/CLI.hpp>
#include <netdb.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <thread>

namespace hexgen::tools {
namespace {

std::string variable(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? std::string() : std::string(value);
}

double parse_number(const std::string& text, const std::string& what) {
  std::size_t used = 0;
  double value = 0;
  try {
    value = std::stod(text, &used);
  } catch (const std::exception&) {
    used = 0;
  }
  if (used == 0 || used != text.size() || !std::isfinite(value))
    throw usage_error(what + " must be a number, not '" + text + "'");
  return value;
}

int parse_count(const std::string& text, const std::string& what, int least, int most) {
  const double value = parse_number(text, what);
  if (value < least || value > most || value != std::floor(value))
    throw usage_error(what + " must be a whole number from " + std::to_string(least) + " to " +
                      std::to_string(most) + ", not '" + text + "'");
  return static_cast<int>(value);
}

std::uint64_t physical_memory() {
  const long pages = ::sysconf(_SC_PHYS_PAGES), size = ::sysconf(_SC_PAGE_SIZE);
  return pages > 0 && size > 0
             ? static_cast<std::uint64_t>(pages) * static_cast<std::uint64_t>(size)
             : std::uint64_t{1} << 30;
}

} // namespace

CLI::Option* with_environment(CLI::Option* option) {
  std::string name = "HEXGEN_";
  for (const char c : option->get_lnames().at(0))
    name += c == '-' ? '_' : static_cast<char>(std::toupper(static_cast<unsigned char>(c)));
  return option->envname(name);
}

std::uint64_t parse_bytes(const std::string& text) {
  const auto unit = text.find_first_not_of("0123456789.");
  const double value = parse_number(text.substr(0, unit), "a size");
  static const std::pair<const char*, double> units[] = {
      {"", 1},          {"B", 1},       {"K", 1 << 10},   {"KiB", 1 << 10},         {"M", 1 << 20},
      {"MiB", 1 << 20}, {"G", 1 << 30}, {"GiB", 1 << 30}, {"TiB", std::pow(2, 40)}, {"KB", 1e3},
      {"MB", 1e6},      {"GB", 1e9},    {"TB", 1e12}};
  const auto name = unit == std::string::npos ? std::string() : text.substr(unit);
  for (const auto& [known, factor] : units)
    if (name == known) {
      const double bytes = value * factor;
      if (bytes < 1 || bytes > std::pow(2, 50))
        break;
      return static_cast<std::uint64_t>(bytes);
    }
  throw usage_error("a size is a number with KiB, MiB, GiB, KB, MB or GB, not '" + text + "'");
}

parsed_device parse_device(const std::string& text, std::uint32_t index) {
  parsed_device out;
  auto& d = out.options;
  d.index = index;
  d.threads = std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
  d.memory_bytes = physical_memory() / 2;
  const auto colon = text.find(':');
  d.kind = text.substr(0, colon);
  std::string rest = colon == std::string::npos ? "" : text.substr(colon + 1);
  if (d.kind == "cuda") {
    const auto comma = rest.find(',');
    d.ordinal = parse_count(rest.substr(0, comma), "cuda:N", 0, 1023);
    rest = comma == std::string::npos ? "" : rest.substr(comma + 1);
    d.memory_bytes = 0; // the device's own
  } else if (d.kind != "cpu") {
    throw usage_error("a device is cpu[:threads=N,memory=SIZE,speed=F] or "
                      "cuda:N[,memory=SIZE,weights=fp8|int4], not '" +
                      text + "'");
  }
  std::stringstream parts(rest);
  for (std::string part; std::getline(parts, part, ',');) {
    const auto equals = part.find('=');
    const auto key = part.substr(0, equals);
    const auto value = equals == std::string::npos ? "" : part.substr(equals + 1);
    if (key == "threads")
      d.threads = parse_count(value, "threads", 1, 1024);
    else if (key == "memory")
      d.memory_bytes = parse_bytes(value);
    else if (key == "speed") {
      d.speed = parse_number(value, "speed");
      if (!(d.speed > 0) || d.speed > 1)
        throw usage_error("speed must be above 0 and at most 1, not '" + value + "'");
    } else if (key == "weights" && d.kind == "cuda") {
      using compute::gpu_weights;
      if (value != "bf16" && value != "fp8" && value != "int4")
        throw usage_error("weights of a GPU are bf16, fp8 or int4, not '" + value + "'");
      d.weights = value == "fp8"    ? gpu_weights::fp8
                  : value == "int4" ? gpu_weights::int4
                                    : gpu_weights::bf16;
    } else {
      throw usage_error("a device has threads=, memory= and speed=, a GPU also weights=, not '" +
                        part + "'");
    }
  }
  out.description = text;
  return out;
}

void check_gpu(const parsed_device& device) {
  const std::string name = "cuda:" + std::to_string(device.options.ordinal);
  std::string why;
  if (!compute::built_with_cuda()) {
    (void)compute::list_gpus(why);
    throw usage_error(name + ": " + why);
  }
  const auto gpus = compute::read_gpus(why);
  if (gpus.empty())
    throw std::runtime_error(name + " cannot be used: " + why);
  // NVML counts all of the machine's GPUs, CUDA the visible ones: the worker looks again.
  if (device.options.ordinal >= static_cast<int>(gpus.size()))
    throw std::runtime_error(name + " cannot be used: this machine has " +
                             std::to_string(gpus.size()) + " GPU(s), counted from 0");
}

void complete_gpu(parsed_device& device) {
  // CUDA's own context, kernels, cuBLASLt's workspaces and graphs.
  constexpr std::uint64_t reserve_bytes = 2ULL << 30;
  check_gpu(device);
  std::string why;
  for (const auto& g : compute::list_gpus(why)) {
    if (g.ordinal != device.options.ordinal)
      continue;
    const auto most = g.free_bytes - std::min(g.free_bytes, reserve_bytes);
    auto& budget = device.options.memory_bytes;
    if (budget > most)
      throw std::runtime_error(device.description + " has " + std::to_string(most >> 20) +
                               " MiB left of " + std::to_string(g.memory_bytes >> 20) +
                               " MiB, less than memory= asks for");
    budget = budget == 0 ? most : budget;
    device.description += " " + g.name;
    return;
  }
  throw std::runtime_error(device.description +
                           " cannot be used: " + (why.empty() ? "there is no such device" : why));
}

std::vector<std::string> default_devices() {
  return {"cpu"};
}

bool is_loopback(const std::string& host) {
  return host == "localhost" || transport::is_loopback(host);
}

host_port parse_address(const std::string& text) {
  host_port out;
  const auto colon = text.rfind(':');
  out.host = text.substr(0, colon);
  if (colon != std::string::npos)
    out.port = parse_count(text.substr(colon + 1), "a port", 1, 65535);
  if (out.host.empty())
    throw usage_error("an address is HOST or HOST:PORT, not '" + text + "'");
  return out;
}

std::vector<host_port> parse_addresses(const std::string& text) {
  std::vector<host_port> out;
  for (std::size_t at = 0; at <= text.size();) {
    const auto end = std::min(text.find(',', at), text.size());
    out.push_back(parse_address(text.substr(at, end - at)));
    at = end + 1;
  }
  return out;
}

std::string text_of(const std::vector<host_port>& addresses) {
  std::string out;
  for (const auto& a : addresses)
    out += (out.empty() ? "" : ",") + a.text();
  return out;
}

std::string local_address_towards(const std::string& host) {
  addrinfo hints{}, *found = nullptr;
  hints.ai_family = AF_INET;
  hints.ai_socktype = SOCK_DGRAM;
  if (::getaddrinfo(host.c_str(), "9", &hints, &found) != 0 || found == nullptr)
    throw usage_error("the host " + host + " is not known");
  std::string out;
  const int s = ::socket(found->ai_family, SOCK_DGRAM, 0);
  sockaddr_storage own{};
  socklen_t length = sizeof own;
  char text[NI_MAXHOST];
  // Connecting a datagram socket sends nothing; it only chooses the way.
  if (s >= 0 && ::connect(s, found->ai_addr, found->ai_addrlen) == 0 &&
      ::getsockname(s, reinterpret_cast<sockaddr*>(&own), &length) == 0 &&
      ::getnameinfo(reinterpret_cast<sockaddr*>(&own), length, text, sizeof text, nullptr, 0,
                    NI_NUMERICHOST) == 0)
    out = text;
  if (s >= 0)
    ::close(s);
  ::freeaddrinfo(found);
  if (out.empty())
    throw usage_error("there is no way to " + host + "; name an address with --advertise");
  return out;
}

std::string host_name() {
  char name[256] = {};
  if (::gethostname(name, sizeof name - 1) != 0 || name[0] == 0)
    return "node";
  std::string out;
  for (const char* c = name; *c != 0 && out.size() < 64; ++c)
    out += std::isalnum(static_cast<unsigned char>(*c)) != 0 || *c == '-' || *c == '.' ? *c : '-';
  return out;
}

std::string default_token_file() {
  std::filesystem::path folder;
  if (auto state = variable("XDG_STATE_HOME"); !state.empty())
    folder = state;
  else
    folder = std::filesystem::path(variable("HOME").empty() ? "/root" : variable("HOME")) /
             ".local" / "state";
  return folder / "hexgen" / "cluster-token";
}

std::string cluster_token(const std::string& file, bool make) {
  if (auto token = variable("HEXGEN_CLUSTER_TOKEN"); !token.empty())
    return token;
  if (!file.empty())
    return transport::read_token(file);
  const auto standard = default_token_file();
  if (std::filesystem::exists(standard))
    return transport::read_token(standard);
  if (!make)
    throw usage_error("there is no cluster token: set HEXGEN_CLUSTER_TOKEN or give "
                      "--cluster-token-file (`hexgen serve` on this machine writes " +
                      standard + ")");
  const auto token = transport::generate_token();
  transport::write_token(standard, token);
  return token;
}

void fabric_flags::add(CLI::App& app) {
  auto env = [](CLI::Option* o) {
    return with_environment(o)->capture_default_str()->group("Fabric");
  };
  env(app.add_option("--cluster-token-file", token_file,
                     "File with the cluster token (else HEXGEN_CLUSTER_TOKEN, else this user's "
                     "own)"));
  env(app.add_option("--zone", zone,
                     "Nodes of one zone trust one another and use UCX between them (default: this "
                     "machine and user; '-': never)"));
  env(app.add_option("--ucx-interface", ucx_interface,
                     "Interface for UCX beyond this machine; opens a port that is not "
                     "authenticated (default: shared memory only)"));
  env(app.add_option("--wakeup", wake, "How the transport thread waits"))
      ->check(CLI::IsMember({"event", "spin", "busy"}));
  env(app.add_option("--advertise", advertise,
                     "HOST:PORT that other nodes dial to reach this process"));
  env(app.add_option("--relay-pairs", relay_pairs,
                     "For how many pairs of nodes that cannot reach each other this process "
                     "relays at most"))
      ->check(CLI::Range(0, 4096));
}

void fabric_flags::fill(transport::fabric_options& o) const {
  o.zone = zone;
  o.ucx_interface = ucx_interface;
  o.advertise = advertise;
  o.relay_pairs = relay_pairs;
  o.wake = wake == "spin"   ? transport::wakeup::spin
           : wake == "busy" ? transport::wakeup::busy
                            : transport::wakeup::event;
}

void client_flags::add(CLI::App& app) {
  with_environment(
      app.add_option("--address", address, "Fabric address of a hexgen serve or gateway process")
          ->capture_default_str());
  with_environment(app.add_option("--api-key", api_key, "The client's secret, where one is set"));
}

transport::fabric_options client_flags::options() const {
  transport::fabric_options o;
  o.name = "client-" + std::to_string(::getpid());
  o.role = transport::peer_role::client;
  o.api_key = api_key;
  o.zone = "-"; // a client is never trusted with a UCX link
  return o;
}

} // namespace hexgen::tools
