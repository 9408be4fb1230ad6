#include "transport/relay_splice.hpp"

#include <boost/asio/buffer.hpp>
#include <boost/asio/error.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/write.hpp>

#include <utility>

namespace hexgen::transport {

relay_splice::relay_splice(socket a, socket b, std::function<void(ending)> on_end)
    : sockets_{std::move(a), std::move(b)}, buffers_{std::vector<std::byte>(buffer_bytes),
                                                     std::vector<std::byte>(buffer_bytes)},
      on_end_(std::move(on_end)) {}

void relay_splice::start() {
  boost::asio::post(sockets_[0].get_executor(), [self = shared_from_this()] {
    self->read(0);
    self->read(1);
  });
}

void relay_splice::read(std::size_t from) {
  if (closed_)
    return;
  sockets_[from].async_read_some(boost::asio::buffer(buffers_[from]),
                                 [self = shared_from_this(), from](auto error, auto n) {
                                   if (error == boost::asio::error::eof)
                                     self->end_of(from);
                                   else if (error)
                                     self->finish();
                                   else
                                     self->write(from, n);
                                 });
}

void relay_splice::write(std::size_t from, std::size_t count) {
  if (closed_)
    return;
  boost::asio::async_write(sockets_[1 - from], boost::asio::buffer(buffers_[from].data(), count),
                           [self = shared_from_this(), from](auto error, auto n) {
                             self->bytes_.fetch_add(n, std::memory_order_relaxed);
                             if (error)
                               self->finish();
                             else
                               self->read(from);
                           });
}

// The other end still gets what was under way (a goodbye, say) before it sees the same.
void relay_splice::end_of(std::size_t from) {
  if (closed_)
    return;
  boost::system::error_code ignored;
  sockets_[1 - from].shutdown(socket::shutdown_send, ignored);
  if (std::exchange(half_closed_, true))
    finish();
  else
    on_end_(ending::half);
}

void relay_splice::close() {
  boost::asio::post(sockets_[0].get_executor(), [self = shared_from_this()] { self->finish(); });
}

void relay_splice::finish() {
  if (std::exchange(closed_, true))
    return;
  boost::system::error_code ignored;
  for (auto& s : sockets_)
    s.close(ignored);
  on_end_(ending::whole);
}

} // namespace hexgen::transport
