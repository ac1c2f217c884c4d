// What a page shows, as the server said it last.

export class Loaded<T> {
  /** Null before there is an answer. */
  found = $state.raw<T | null>(null);
  trouble = $state("");
  /** Counts the answers. */
  turn = $state(0);
  #read: () => Promise<T>;

  constructor(read: () => Promise<T>) {
    this.#read = read;
    void this.load();
  }

  /** Ask again, or something else; what is shown stays until the answer is here. */
  load = async (read = this.#read): Promise<void> => {
    try {
      this.found = await read();
      this.trouble = "";
      this.turn += 1;
    } catch (error) {
      this.trouble = (error as Error).message;
    }
  };

  /** After a change. */
  after = async (work: Promise<void>): Promise<void> => {
    await work;
    await this.load();
  };
}
