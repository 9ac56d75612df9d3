// outboard-liar: an NVMe controller that lies, one lie of the conformance list after the other.
//
//   outboard-liar SOCKET DEADLINE_MS all|sample|ITEM COMMAND...
//
// all of them, one of each item, or those of one item ("C21"); and in the end it is another device.
// Serves a machine on SOCKET; behind it COMMAND, an outboard-nvme without --socket. DEADLINE_MS is
// the machine's device.timeouts.access. Prints a line for each lie; tells the next when a line
// comes on standard input. At the end of that, or with SIGTERM, it ends: status 0 when every lie
// was told and came out as it must, else 1; 2 for wrong usage.
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include <signal.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "tests/chaos/liar.h"

using namespace outboard::chaos;

int main(int argc, char** argv) {
  if (argc < 5) {
    std::fprintf(stderr, "usage: outboard-liar SOCKET DEADLINE_MS all|sample|ITEM COMMAND...\n");
    return 2;
  }
  ::signal(SIGPIPE, SIG_IGN);
  const std::string which = argv[3];
  std::vector<Lie> lies = all_lies();
  if (which == "sample") {
    std::set<std::string> told;
    std::erase_if(lies, [&](const Lie& lie) { return !told.insert(lie.item).second; });
  } else if (which != "all") {
    std::erase_if(lies, [&](const Lie& lie) { return lie.item != which; });
  }
  lies.push_back(last_lies().back());
  LiarOptions options{.socket = argv[1], .server = {argv + 4, argv + argc}};
  options.deadline = std::chrono::milliseconds(std::atol(argv[2]));
  options.patience = std::chrono::seconds(60);
  options.say = [](const std::string& line) {
    std::printf("%s\n", line.c_str());
    std::fflush(stdout);
  };
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGTERM);
  sigaddset(&set, SIGINT);
  sigprocmask(SIG_BLOCK, &set, nullptr);

  Liar liar(options);
  std::atomic<int> asked{0};
  std::thread([&] {
    for (int byte = 0; (byte = std::getchar()) != EOF;) asked += byte == '\n' ? 1 : 0;
    liar.stop();
  }).detach();
  std::thread([&] {
    int signal = 0;
    sigwait(&set, &signal);
    liar.stop();
  }).detach();
  int given = 0;
  std::printf("%zu lies\n", lies.size());
  std::fflush(stdout);
  const auto wrongs = liar.run(lies, [&] {
    if (given >= asked) return false;
    ++given;
    return true;
  });
  for (const std::string& wrong : wrongs) std::printf("wrong: %s\n", wrong.c_str());
  std::fflush(stdout);
  ::_exit(wrongs.empty() && liar.told() == lies.size() ? 0 : 1);  // with threads that still wait
}
