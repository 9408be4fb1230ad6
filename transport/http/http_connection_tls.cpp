#include "transport/http/http_connection.ipp"

namespace hexgen::transport {
template class http_connection<boost::asio::ssl::stream<boost::asio::ip::tcp::socket>>;
} // namespace hexgen::transport
