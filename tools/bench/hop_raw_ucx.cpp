// The same exchange in bare UCX calls: active messages, one thread, the fabric's settings.
#include "tools/bench/hop_exchange.hpp"

#include <poll.h>
#include <ucp/api/ucp.h>

#include <chrono>
#include <cstdint>
#include <cstring>
#include <deque>
#include <stdexcept>
#include <thread>
#include <vector>

namespace hexgen::bench {
namespace {

using transport::wakeup;

void check(ucs_status_t status, const char* what) {
  if (status != UCS_OK)
    throw std::runtime_error(std::string("bench_hop: ") + what + ": " + ucs_status_string(status));
}

class bare_end {
public:
  bare_end(wakeup wake, const hop_channel& channel)
      : wake_(wake), into_(largest_message), from_(largest_message) {
    ucp_config_t* config = nullptr;
    check(ucp_config_read(nullptr, nullptr, &config), "ucp_config_read");
    check(ucp_config_modify(config, "TLS", "posix,self"), "TLS");
    check(ucp_config_modify(config, "MM_ERROR_HANDLING", "y"), "MM_ERROR_HANDLING");
    ucp_params_t parameters{};
    parameters.field_mask = UCP_PARAM_FIELD_FEATURES;
    parameters.features = UCP_FEATURE_AM | UCP_FEATURE_WAKEUP;
    check(ucp_init(&parameters, config, &context_), "ucp_init");
    ucp_config_release(config);
    ucp_worker_params_t worker_parameters{};
    check(ucp_worker_create(context_, &worker_parameters, &worker_), "ucp_worker_create");
    check(ucp_worker_get_efd(worker_, &event_fd_), "ucp_worker_get_efd");
    ucp_am_handler_param_t handler{};
    handler.field_mask = UCP_AM_HANDLER_PARAM_FIELD_ID | UCP_AM_HANDLER_PARAM_FIELD_CB |
                         UCP_AM_HANDLER_PARAM_FIELD_ARG;
    handler.id = 1;
    handler.cb = on_message;
    handler.arg = this;
    check(ucp_worker_set_am_recv_handler(worker_, &handler), "ucp_worker_set_am_recv_handler");
    ucp_address_t* address = nullptr;
    std::size_t bytes = 0;
    check(ucp_worker_get_address(worker_, &address, &bytes), "ucp_worker_get_address");
    channel.put(std::string(reinterpret_cast<const char*>(address), bytes));
    ucp_worker_release_address(worker_, address);
    const std::string peer = channel.get();
    ucp_ep_params_t ep{};
    ep.field_mask = UCP_EP_PARAM_FIELD_REMOTE_ADDRESS | UCP_EP_PARAM_FIELD_ERR_HANDLING_MODE;
    ep.address = reinterpret_cast<const ucp_address_t*>(peer.data());
    ep.err_mode = UCP_ERR_HANDLING_MODE_PEER;
    check(ucp_ep_create(worker_, &ep, &endpoint_), "ucp_ep_create");
  }
  bare_end(const bare_end&) = delete;
  bare_end& operator=(const bare_end&) = delete;
  ~bare_end() {
    ucp_worker_destroy(worker_);
    ucp_cleanup(context_);
  }

  void send(std::uint32_t type, std::size_t bytes) {
    headers_.push_back({type, static_cast<std::uint32_t>(bytes)});
    ++sending_;
    ucp_request_param_t parameters{};
    parameters.op_attr_mask = UCP_OP_ATTR_FIELD_CALLBACK | UCP_OP_ATTR_FIELD_USER_DATA;
    parameters.cb.send = on_sent;
    parameters.user_data = this;
    const auto request = ucp_am_send_nbx(endpoint_, 1, &headers_.back(), sizeof(message_header),
                                         from_.data(), bytes, &parameters);
    if (UCS_PTR_IS_ERR(request))
      check(UCS_PTR_STATUS(request), "ucp_am_send_nbx");
    if (request == nullptr)
      --sending_;
  }
  message_header receive() {
    while (arrived_.empty())
      step();
    const message_header header = arrived_.front();
    arrived_.pop_front();
    if (sending_ == 0)
      headers_.clear();
    return header;
  }

private:
  static void on_sent(void* request, ucs_status_t, void* self) {
    --static_cast<bare_end*>(self)->sending_;
    ucp_request_free(request);
  }
  static void on_fetched(void* request, ucs_status_t status, std::size_t, void* self) {
    check(status, "rendezvous");
    auto* end = static_cast<bare_end*>(self);
    end->arrived_.push_back(end->fetching_.front());
    end->fetching_.pop_front();
    ucp_request_free(request);
  }
  static ucs_status_t on_message(void* self, const void* header, std::size_t, void* data,
                                 std::size_t bytes, const ucp_am_recv_param_t* parameters) {
    auto* end = static_cast<bare_end*>(self);
    message_header message;
    std::memcpy(&message, header, sizeof message);
    if ((parameters->recv_attr & UCP_AM_RECV_ATTR_FLAG_RNDV) == 0) {
      if (bytes != 0) // a consumer keeps it beyond the callback
        std::memcpy(end->into_.data(), data, bytes);
      end->arrived_.push_back(message);
      return UCS_OK;
    }
    ucp_request_param_t receive{};
    receive.op_attr_mask = UCP_OP_ATTR_FIELD_CALLBACK | UCP_OP_ATTR_FIELD_USER_DATA;
    receive.cb.recv_am = on_fetched;
    receive.user_data = self;
    end->fetching_.push_back(message);
    const auto request =
        ucp_am_recv_data_nbx(end->worker_, data, end->into_.data(), bytes, &receive);
    if (request == nullptr) {
      end->arrived_.push_back(end->fetching_.back());
      end->fetching_.pop_back();
    }
    return UCS_INPROGRESS;
  }

  void step() {
    using clock = std::chrono::steady_clock;
    const auto idle_since = clock::now();
    for (;;) {
      if (ucp_worker_progress(worker_) != 0)
        return;
      if (wake_ == wakeup::busy ||
          (wake_ == wakeup::spin && clock::now() - idle_since < std::chrono::microseconds(50)))
        continue;
      if (ucp_worker_arm(worker_) == UCS_OK)
        break;
      std::this_thread::yield();
    }
    pollfd waits{event_fd_, POLLIN, 0};
    ::poll(&waits, 1, -1);
  }

  wakeup wake_;
  std::vector<std::byte> into_;
  std::vector<std::byte> from_;
  ucp_context_h context_ = nullptr;
  ucp_worker_h worker_ = nullptr;
  ucp_ep_h endpoint_ = nullptr;
  int event_fd_ = -1;
  int sending_ = 0;
  std::deque<message_header> headers_;
  std::deque<message_header> arrived_;
  std::deque<message_header> fetching_;
};

} // namespace

std::unique_ptr<hop_driver> make_raw_ucx_driver(wakeup wake, const hop_channel& channel) {
  return std::make_unique<exchange_driver<bare_end>>(wake, channel);
}

void serve_raw_ucx(wakeup wake, const hop_channel& channel) {
  bare_end end(wake, channel);
  answer(end);
}

} // namespace hexgen::bench
