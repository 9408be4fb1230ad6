#include "transport/ucx_context.hpp"

#include <ucp/api/ucp.h>
#include <ucs/config/global_opts.h>
#include <ucs/debug/debug.h>

#include <csignal>
#include <cstdlib>
#include <mutex>

namespace hexgen::transport {
namespace {

// UCX takes SIGHUP (it then logs in debug mode) and the crash signals when it is loaded, whatever
// a later UCX_DEBUG_SIGNO or UCX_ERROR_SIGNALS says: give them back.
void quieten() {
  static std::once_flag once;
  std::call_once(once, [] {
    for (const int signal : {SIGHUP, SIGILL, SIGSEGV, SIGBUS, SIGFPE})
      ucs_debug_disable_signal(signal);
    // What it warns of (requests that a frozen peer never answered) is expected and handled here.
    if (std::getenv("UCX_LOG_LEVEL") == nullptr)
      ucs_global_opts_set_value("LOG_LEVEL", "error");
  });
}

bool configure(ucp_config_t* config, const char* name, const std::string& value) {
  return ucp_config_modify(config, name, value.c_str()) == UCS_OK;
}

} // namespace

std::string ucx_context::version() {
  return ucp_get_version_string();
}

std::shared_ptr<ucx_context> ucx_context::make(const std::string& interface, std::string& why) {
  quieten();
  ucp_config_t* config = nullptr;
  ucs_status_t status = ucp_config_read(nullptr, nullptr, &config);
  if (status != UCS_OK) {
    why = std::string("its configuration cannot be read: ") + ucs_status_string(status);
    return nullptr;
  }
  // Shared memory only by default: no port is open. A frozen or dead peer is seen by its TLS
  // connection first; the keep-alive ends what UCX itself waits for.
  bool configured =
      configure(config, "TLS", interface.empty() ? "posix,self" : "posix,self,tcp,rc,ud") &&
      configure(config, "KEEPALIVE_INTERVAL", "500ms") &&
      configure(config, "MM_ERROR_HANDLING", "y");
  if (!interface.empty())
    configured = configured && configure(config, "NET_DEVICES", interface) &&
                 configure(config, "MAX_RNDV_RAILS", "1");
  if (!configured) {
    ucp_config_release(config);
    why = "it does not know a setting that is needed";
    return nullptr;
  }
  ucp_context_h context = nullptr;
  ucp_params_t parameters{};
  parameters.field_mask = UCP_PARAM_FIELD_FEATURES;
  parameters.features = UCP_FEATURE_AM | UCP_FEATURE_WAKEUP;
  status = ucp_init(&parameters, config, &context);
  ucp_config_release(config);
  if (status != UCS_OK) {
    why = std::string("no context: ") + ucs_status_string(status);
    return nullptr;
  }
  return std::shared_ptr<ucx_context>(new ucx_context(context));
}

ucx_context::~ucx_context() {
  ucp_cleanup(context_);
}

} // namespace hexgen::transport
