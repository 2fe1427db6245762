"""Results computed ahead by threads, while those before them are in use."""
import collections
import concurrent.futures
import queue
import threading

PATIENCE = 2  # seconds to wait at the end for a thread: what reads a pipe or an address may be blocked


def ahead(function, items, threads=1):
    """Yield function(item) for each of `items`, in order, while `threads` threads compute the next ones.

    `items` is iterated over by the caller's thread. Twice as many results as threads are in work or waiting; with 0
    threads each is computed when it is asked for. What `function` raises is raised at its turn. Close it if you do not
    take all.
    """
    if not threads:
        yield from map(function, items)
        return
    tasks, pending = queue.SimpleQueue(), collections.deque()

    def work():
        for item, future in iter(tasks.get, None):
            if future.set_running_or_notify_cancel():
                try:
                    future.set_result(function(item))
                except BaseException as error:
                    future.set_exception(error)

    # Daemons: one that is blocked must not keep the process from ending.
    workers = [threading.Thread(target=work, daemon=True) for _ in range(threads)]
    for worker in workers:
        worker.start()
    try:
        for item in items:
            pending.append(concurrent.futures.Future())
            tasks.put((item, pending[-1]))
            if len(pending) == 2 * threads:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        for future in pending:
            future.cancel()
        for _ in workers:
            tasks.put(None)
        for worker in workers:
            worker.join(PATIENCE)
