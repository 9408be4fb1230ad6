#include "actors/shell/child_process.hpp"

#include "actors/shell/clock.hpp"

#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstring>
#include <thread>

extern char** environ;

namespace hexgen::actors {

child_process::child_process(std::vector<std::string> arguments,
                             std::vector<std::string> environment,
                             std::function<void(const std::string&)> log)
    : arguments_(std::move(arguments)), environment_(std::move(environment)), log_(std::move(log)) {
}

child_process::~child_process() {
  stop();
}

void child_process::start() {
  // Everything that allocates happens before fork: other threads may hold the allocator's lock.
  std::vector<char*> argv, envp;
  for (auto& a : arguments_)
    argv.push_back(a.data());
  argv.push_back(nullptr);
  for (auto& e : environment_)
    envp.push_back(e.data());
  for (char** e = environ; *e != nullptr; ++e) {
    const auto* end = std::strchr(*e, '=');
    const auto name = end == nullptr ? std::strlen(*e) : static_cast<std::size_t>(end - *e + 1);
    if (std::none_of(environment_.begin(), environment_.end(),
                     [&](const std::string& mine) { return mine.compare(0, name, *e, name) == 0; }))
      envp.push_back(*e);
  }
  envp.push_back(nullptr);
  // A signal to the child must not run this process's handlers in it: they would write to
  // descriptors that the two share until exec.
  sigset_t all, before;
  sigfillset(&all);
  ::pthread_sigmask(SIG_SETMASK, &all, &before);
  const pid_t parent = ::getpid();
  const pid_t child = ::fork();
  if (child == 0) {
    for (int s = 1; s < NSIG; ++s)
      ::signal(s, SIG_DFL);
    ::prctl(PR_SET_PDEATHSIG, SIGTERM);
    if (::getppid() != parent)
      ::_exit(1); // the parent ended in between
    sigset_t none;
    sigemptyset(&none);
    ::sigprocmask(SIG_SETMASK, &none, nullptr);
    ::execve(argv[0], argv.data(), envp.data());
    ::_exit(127);
  }
  ::pthread_sigmask(SIG_SETMASK, &before, nullptr);
  started_ms_ = now_ms();
  if (child < 0) {
    ++failures_;
    next_ms_ = started_ms_ + 1000;
    log_(std::string("event=child_failed why=\"fork: ") + std::strerror(errno) + "\"");
    return;
  }
  pid_ = child;
  log_("event=child_started pid=" + std::to_string(child));
}

bool child_process::reap(int options) {
  int status = 0;
  if (pid_ == 0 || ::waitpid(pid_, &status, options) != pid_)
    return false;
  const bool signalled = WIFSIGNALED(status);
  const int code = signalled ? WTERMSIG(status) : WEXITSTATUS(status);
  log_("event=child_ended pid=" + std::to_string(pid_) + (signalled ? " signal=" : " code=") +
       std::to_string(code));
  pid_ = 0;
  if (now_ms() > started_ms_ + 30'000)
    failures_ = 0;
  next_ms_ = now_ms() + std::min<std::uint64_t>(10'000, 200ULL << std::min(failures_, 6));
  ++failures_;
  if (!signalled && (code == 2 || code == 127)) {
    given_up_ = true;
    log_("event=child_given_up why=\"it cannot be started with these arguments\"");
  }
  return true;
}

void child_process::poll() {
  reap(WNOHANG);
  if (pid_ == 0 && !given_up_ && now_ms() >= next_ms_)
    start();
}

void child_process::stop(std::uint32_t limit_ms) {
  given_up_ = true;
  if (pid_ == 0)
    return;
  ::kill(pid_, SIGTERM);
  const auto deadline = now_ms() + limit_ms;
  while (pid_ != 0 && now_ms() < deadline)
    if (!reap(WNOHANG))
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
  if (pid_ == 0)
    return;
  ::kill(pid_, SIGKILL);
  reap(0);
}

} // namespace hexgen::actors
