#include "tools/bench_serve/sse_reader.hpp"

#include <utility>

namespace hexgen::tools {

std::vector<std::string> sse_reader::feed(std::string_view bytes) {
  std::vector<std::string> events;
  for (const char c : bytes) {
    if (broken_)
      break;
    if (c == '\n')
      take_line(events);
    else if (line_.size() + data_.size() >= most_bytes_)
      broken_ = true;
    else
      line_ += c;
  }
  return events;
}

void sse_reader::take_line(std::vector<std::string>& events) {
  auto line = std::exchange(line_, {});
  if (!line.empty() && line.back() == '\r')
    line.pop_back();
  if (line.empty()) {
    if (std::exchange(has_data_, false))
      events.push_back(std::exchange(data_, {}));
    return;
  }
  if (line.rfind("data:", 0) != 0)
    return;
  if (has_data_)
    data_ += '\n';
  has_data_ = true;
  data_ += line.substr(line.size() > 5 && line[5] == ' ' ? 6 : 5);
}

} // namespace hexgen::tools
