#include "actors/openai/answer_journal.hpp"

#include <fcntl.h>
#include <nlohmann/json.hpp>
#include <sys/file.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <stdexcept>

namespace hexgen::actors {
namespace {

using clock = std::chrono::steady_clock;
using nlohmann::json;

constexpr std::size_t most_answers = 4096;
constexpr const char* ending = ".answer";
constexpr const char* done = "[DONE]";

[[noreturn]] void fail(const std::string& file) {
  throw std::runtime_error("the journal " + file + ": " + std::strerror(errno));
}

/// A line of a file; discarded when it is torn (the process died while it wrote).
json parsed(const std::string& line) {
  return json::parse(line, nullptr, false);
}

template <class T>
T get(const json& object, const char* name, T otherwise) {
  try {
    return object.value(name, std::move(otherwise));
  } catch (const json::exception&) {
    throw std::runtime_error(std::string("the journal's field ") + name + " is of a wrong type");
  }
}

} // namespace

journaled_answer::journaled_answer(std::string file, journaled_request request)
    : file_(std::move(file)), request_(std::move(request)), has_job_(true),
      alone_since_(clock::now()) {
  descriptor_ = ::open(file_.c_str(), O_CREAT | O_TRUNC | O_WRONLY | O_APPEND | O_CLOEXEC, 0600);
  if (descriptor_ < 0)
    fail(file_);
  write(json{{"path", request_.path},
             {"body", request_.body},
             {"seed", request_.seed},
             {"answer_id", request_.answer_id},
             {"created_s", request_.created_s}}
            .dump());
  if (descriptor_ < 0)
    throw std::runtime_error("the journal " + file_ + " cannot be written");
}

journaled_answer::journaled_answer(std::string file)
    : file_(std::move(file)), alone_since_(clock::now()) {
  std::ifstream in(file_);
  std::string line;
  std::getline(in, line);
  const auto head = parsed(line);
  if (in.eof() || !head.is_object())
    throw std::runtime_error("the journal " + file_ + " has no head");
  request_ = {get(head, "path", std::string()), get(head, "body", std::string()),
              get(head, "seed", std::uint64_t{0}), get(head, "answer_id", std::string()),
              get(head, "created_s", std::int64_t{0})};
  auto whole = static_cast<std::uintmax_t>(in.tellg());
  while (std::getline(in, line)) {
    const auto entry = parsed(line);
    if (in.eof() || !entry.is_object())
      break;
    whole = static_cast<std::uintmax_t>(in.tellg());
    ++payloads_;
    finished_ = finished_ || get(entry, "finished", false);
    complete_ = complete_ || get(entry, "data", std::string()) == done;
  }
  std::filesystem::resize_file(file_, whole); // the torn line goes
  descriptor_ = ::open(file_.c_str(), O_WRONLY | O_APPEND | O_CLOEXEC);
  if (descriptor_ < 0)
    fail(file_);
}

journaled_answer::~journaled_answer() {
  if (descriptor_ >= 0)
    ::close(descriptor_);
}

std::vector<compute::token_id> journaled_answer::emitted() const {
  std::vector<compute::token_id> all;
  std::ifstream in(file_);
  std::string line;
  std::getline(in, line);
  while (std::getline(in, line))
    if (const auto entry = parsed(line); entry.is_object()) {
      const auto ids = get(entry, "taken", std::vector<compute::token_id>());
      all.insert(all.end(), ids.begin(), ids.end());
    }
  return all;
}

bool journaled_answer::attach(std::shared_ptr<reply_sink> to, std::uint64_t after,
                              const transport::http_headers& headers) {
  std::shared_ptr<reply_sink> before;
  std::uint64_t mine = 0;
  {
    const std::lock_guard lock(mutex_);
    if (after > payloads_)
      return false;
    mine = ++listener_;
    before = std::exchange(to_, to);
    if (opened_ || payloads_ > 0)
      to->open(headers);
    std::ifstream in(file_);
    std::string line;
    std::getline(in, line);
    for (std::uint64_t number = 1; number <= payloads_ && std::getline(in, line); ++number)
      if (const auto entry = parsed(line); number > after && entry.is_object())
        to->event(number, get(entry, "data", std::string()));
    if (finished_ && !has_job_ && !complete_) // its process died before the last word
      end();
    if (complete_)
      to->close();
  }
  if (before && before != to)
    before->close();
  to->on_closed([weak = weak_from_this(), mine] {
    if (const auto me = weak.lock()) {
      const std::lock_guard lock(me->mutex_);
      if (me->listener_ == mine) {
        me->to_.reset();
        me->alone_since_ = clock::now();
      }
    }
  });
  return true;
}

bool journaled_answer::claim() {
  const std::lock_guard lock(mutex_);
  return !complete_ && !std::exchange(has_job_, true);
}

void journaled_answer::unclaim() {
  const std::lock_guard lock(mutex_);
  has_job_ = false;
}

void journaled_answer::taken(const std::vector<compute::token_id>& ids, bool last) {
  const std::lock_guard lock(mutex_);
  ids_.insert(ids_.end(), ids.begin(), ids.end());
  finished_ = finished_ || last;
}

bool journaled_answer::forgotten(clock::duration keep) {
  std::function<void()> give_up;
  {
    const std::lock_guard lock(mutex_);
    if (descriptor_ >= 0 && ((to_ && !complete_) || clock::now() - alone_since_ < keep))
      return false;
    if (!to_)
      give_up = std::exchange(give_up_, nullptr);
  }
  unname();
  if (give_up)
    give_up();
  return true;
}

void journaled_answer::unname() {
  const std::lock_guard lock(mutex_);
  if (descriptor_ < 0)
    return;
  ::unlink(file_.c_str());
  ::close(std::exchange(descriptor_, -1));
}

void journaled_answer::whole(transport::http_reply reply) {
  bool streams = false;
  {
    const std::lock_guard lock(mutex_);
    streams = opened_ || payloads_ > 0;
  }
  if (streams) { // an error of a stream
    data(std::move(reply.body));
    data(done);
    close();
    return;
  }
  unname(); // nothing was accepted
  const std::lock_guard lock(mutex_);
  complete_ = true;
  give_up_ = nullptr;
  if (to_)
    to_->whole(std::move(reply));
}

void journaled_answer::expect_stream(const transport::http_headers& headers) {
  const std::lock_guard lock(mutex_);
  if (to_)
    to_->expect_stream(headers);
}

void journaled_answer::open(const transport::http_headers& headers) {
  const std::lock_guard lock(mutex_);
  opened_ = true;
  if (to_)
    to_->open(headers);
}

bool journaled_answer::data(std::string payload) {
  const std::lock_guard lock(mutex_);
  ++payloads_;
  complete_ = complete_ || payload == done;
  json entry = {{"data", payload}};
  if (!ids_.empty())
    entry["taken"] = std::exchange(ids_, {});
  if (finished_)
    entry["finished"] = true;
  write(entry.dump());
  if (to_ && !to_->event(payloads_, std::move(payload))) {
    to_.reset();
    ++listener_;
    alone_since_ = clock::now();
  }
  return descriptor_ >= 0 || to_; // without both nobody will ever read it
}

void journaled_answer::close() {
  const std::lock_guard lock(mutex_);
  complete_ = true;
  give_up_ = nullptr;
  alone_since_ = clock::now();
  if (to_)
    to_->close();
}

void journaled_answer::on_closed(std::function<void()> callback) {
  const std::lock_guard lock(mutex_);
  if (!complete_)
    give_up_ = std::move(callback);
}

void journaled_answer::end() {
  ++payloads_;
  complete_ = true;
  write(json{{"data", done}}.dump());
  to_->event(payloads_, done);
}

void journaled_answer::write(const std::string& line) {
  if (descriptor_ < 0)
    return;
  const auto text = line + "\n";
  std::size_t at = 0;
  while (at < text.size()) {
    const auto n = ::write(descriptor_, text.data() + at, text.size() - at);
    if (n < 0 && errno == EINTR)
      continue;
    if (n <= 0) { // the disk is full: the answer goes on, but nobody can return to it
      ::unlink(file_.c_str());
      ::close(std::exchange(descriptor_, -1));
      return;
    }
    at += static_cast<std::size_t>(n);
  }
}

answer_journal::answer_journal(std::string directory, clock::duration keep)
    : directory_(std::move(directory)), keep_(keep) {
  std::error_code error;
  if (std::filesystem::create_directories(directory_, error))
    std::filesystem::permissions(directory_, std::filesystem::perms::owner_all);
  const auto lock_file = directory_ + "/lock";
  lock_ = ::open(lock_file.c_str(), O_CREAT | O_RDWR | O_CLOEXEC, 0600);
  if (lock_ < 0)
    fail(lock_file);
  if (::flock(lock_, LOCK_EX | LOCK_NB) != 0) {
    ::close(lock_);
    throw std::runtime_error("the journal " + directory_ + " is in use by another gateway");
  }
  for (const auto& entry : std::filesystem::directory_iterator(directory_)) {
    const auto name = entry.path().filename().string();
    if (entry.path().extension() != ending || answers_.size() >= most_answers)
      continue;
    try {
      answers_[name.substr(0, name.size() - std::strlen(ending))] =
          std::make_shared<journaled_answer>(entry.path().string());
    } catch (const std::exception&) {
      std::error_code ignored;
      std::filesystem::remove(entry.path(), ignored); // no head: it was never answered
    }
  }
}

answer_journal::~answer_journal() {
  ::close(lock_);
}

std::string answer_journal::file_of(const std::string& name) const {
  return directory_ + "/" + name + ending;
}

void answer_journal::forget_old() {
  std::erase_if(answers_, [&](const auto& a) { return a.second->forgotten(keep_); });
}

std::shared_ptr<journaled_answer> answer_journal::begin(const std::string& name,
                                                        journaled_request request) {
  const std::lock_guard lock(mutex_);
  forget_old();
  if (const auto old = answers_.find(name); old != answers_.end()) {
    old->second->unname();
    answers_.erase(old);
  }
  if (answers_.size() >= most_answers)
    return nullptr;
  try {
    return answers_[name] = std::make_shared<journaled_answer>(file_of(name), std::move(request));
  } catch (const std::runtime_error&) {
    answers_.erase(name);
    return nullptr;
  }
}

std::shared_ptr<journaled_answer> answer_journal::find(const std::string& name) {
  const std::lock_guard lock(mutex_);
  forget_old();
  const auto i = answers_.find(name);
  return i == answers_.end() ? nullptr : i->second;
}

} // namespace hexgen::actors
