# Runs in a container of the test image: changes of every kind.
echo more >>/kept && rm -r /seed /usr/share/man && mv /renamed /again && ln /links/a /links/d && chmod 700 /etc/apt &&
    mkdir -p /new/deep && echo x >/new/deep/f && truncate -s 64M /hole && echo end >>/hole && mkfifo /fifo &&
    rm -r /usr/share/doc && mkdir /usr/share/doc && echo d >/usr/share/doc/new && rm /etc/fstab && chown 5:6 /etc/passwd &&
    echo last >>/links/b && rm /links/b && touch -d 1999-01-01 /new/old &&
    python3 -c "import os; os.setxattr('/kept', 'user.x', b'y')"
