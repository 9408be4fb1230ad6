// UCX as this process uses it: which transports, with which settings.
#pragma once

#include <memory>
#include <string>

struct ucp_context;

namespace hexgen::transport {

/// Shared by the workers of all peers; any thread.
class ucx_context {
public:
  /// Null: UCX does not work here; `why` says what it said. `interface`: empty means shared memory
  /// only, which opens no port; else also TCP and RDMA on that interface.
  static std::shared_ptr<ucx_context> make(const std::string& interface, std::string& why);
  ucx_context(const ucx_context&) = delete;
  ucx_context& operator=(const ucx_context&) = delete;
  ~ucx_context();

  [[nodiscard]] static std::string version();
  [[nodiscard]] ucp_context* get() const { return context_; }

private:
  explicit ucx_context(ucp_context* context) : context_(context) {}
  ucp_context* context_;
};

} // namespace hexgen::transport
